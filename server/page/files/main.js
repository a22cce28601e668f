// The page: what is shown, and what each click and key does.

import { running, write } from "./answer.js";
import { askJson, onKeyNeeded } from "./api.js";
import { $, button, copy, count, download, h, keep, say } from "./dom.js";
import { MessageView } from "./message.js";
import * as server from "./server.js";
import * as settings from "./settings.js";
import * as store from "./store.js";
import { add, newConversation, path, remove, ROOT } from "./tree.js";

const LONGEST_FILE = 2 ** 20;
const SAVE_EVERY_MS = 2000;

const input = $("input");
const log = $("log");

let conversations = [];
let current = newConversation(settings.latest());
let views = new Map(); // node id → MessageView, of what is shown
let files = []; // attached to the next message
let atEnd = true;
let scrolled = 0;

// Conversations

const titleOf = (conversation) => conversation.title || "New chat";

async function save(conversation, changed = true) {
	if (changed) conversation.updated = Date.now();
	if (!conversations.includes(conversation)) conversations.push(conversation);
	list();
	await store.save(conversation).catch((error) => say(`This conversation cannot be stored: ${error.message}`));
}

function open(conversation) {
	current = conversation;
	views.clear();
	settings.show(current.settings);
	atEnd = true;
	sidebar(false);
	view("chat");
	show();
	list();
	history.replaceState(null, "", `#${path(conversation).length ? conversation.id : ""}`);
}

function startAnew() {
	open(newConversation(settings.latest()));
	input.focus();
}

function list() {
	const words = $("search").value.toLowerCase().split(/\s+/);
	const found = conversations.filter(({ title, nodes }) => {
		const whole = [title, ...Object.values(nodes).map(({ text }) => text)].join("\n").toLowerCase();
		return words.every((word) => whole.includes(word));
	});
	found.sort((a, b) => b.updated - a.updated);
	const rows = found.map((conversation) => {
		const row = button(titleOf(conversation), () => open(conversation), { "aria-current": conversation === current || null });
		if (running.has(conversation.id)) row.append(h("i", { class: "busy", role: "img", "aria-label": "answering" }));
		return h("li", {}, row);
	});
	const had = $("conversations").contains(document.activeElement);
	const none = conversations.length ? "Nothing found" : "Conversations are stored in this browser.";
	$("conversations").replaceChildren(...(rows.length ? rows : [h("li", { class: "hint" }, none)]));
	if (had) $("conversations").querySelector("[aria-current]")?.focus();
}

function removeConversation() {
	if (!confirm(`Delete “${titleOf(current)}”?`)) return;
	running.get(current.id)?.stop();
	conversations = conversations.filter((each) => each !== current);
	store.remove(current.id);
	startAnew();
}

async function importFile([file]) {
	try {
		const found = await store.imported(file);
		for (const conversation of found) await save(conversation, false);
		say(`${count(found.length, "conversation")} imported`);
	} catch (error) {
		say(`${file.name} cannot be imported: ${error.message}.`);
	}
}

// Messages

function show() {
	const shown = path(current);
	const answer = running.get(current.id);
	views = new Map(shown.map((node) => [node.id, views.get(node.id) ?? new MessageView(node, actions)]));
	const have = $("messages").children;
	[...views.values()].forEach((message, i) => {
		message.update(current, answer?.node === message.node ? answer : null);
		if (have[i] !== message.element) $("messages").insertBefore(message.element, have[i] ?? null);
	});
	while (have.length > views.size) have[views.size].remove();
	$("welcome").hidden = shown.length;
	$("title-row").hidden = !shown.length;
	if (document.activeElement !== $("title")) $("title").value = titleOf(current);
	document.title = shown.length ? `${titleOf(current)} – gptoss` : "gptoss";
	$("send").hidden = answer;
	$("stop").hidden = !answer;
}

function follow() {
	if (atEnd) log.scrollTop = log.scrollHeight;
}

const actions = {
	edit({ parent, files: same }, text) {
		if (ready()) answer(add(current, parent, { role: "user", text, files: same }).id);
	},
	regenerate(node) {
		if (!ready()) return;
		if (!node.text && !node.reasoning && !node.calls.length) remove(current, node); // no version worth keeping
		answer(node.parent);
	},
	remove(node) {
		if (!confirm("Delete this message, and what follows it?")) return;
		running.get(current.id)?.stop();
		remove(current, node);
		save(current);
		show();
	},
	choose(node, id) {
		current.chosen[node.parent] = id;
		save(current, false);
		show();
	},
	called(node) {
		if (node.calls.every(({ result }) => result != null) && ready()) return answer(node.id);
		save(current);
		show();
	},
};

/** Whether a request can be sent now; if not, shows why. */
function ready() {
	if (running.has(current.id)) return say("An answer is still running: stop it first.");
	return settings.check() || say("Something in the settings cannot be used.");
}

/** Requests an answer to `parent`. */
async function answer(parent) {
	const conversation = current;
	let due = false;
	const redraw = () => {
		if (due || conversation !== current) return;
		due = requestAnimationFrame(() => {
			due = false;
			show();
		});
	};
	save(conversation);
	atEnd = true;
	$("spoken").textContent = "Answering";
	const is = () => conversations.includes(conversation); // it may have been deleted
	const timers = [setInterval(redraw, 1000), setInterval(() => is() && store.save(conversation).catch(() => {}), SAVE_EVERY_MS)];
	const node = await write(conversation, parent, redraw).finally(() => timers.forEach(clearInterval));
	if (is()) save(conversation);
	if (conversation !== current) return;
	show();
	$("spoken").textContent = node.text || "The answer has ended.";
}

function send() {
	const text = input.value.trim();
	if ((!text && !files.length) || !ready()) return;
	const last = path(current).at(-1);
	if (last?.finish === "tool_calls" && last.calls.some(({ result }) => result == null)) return say("The model waits for results of its calls.");
	current.title ||= (text || files[0].name).replace(/\s+/g, " ").slice(0, 60);
	const node = add(current, last?.id ?? ROOT, { role: "user", text, files });
	input.value = "";
	files = [];
	showFiles();
	fit();
	history.replaceState(null, "", `#${current.id}`);
	answer(node.id);
}

// Files

async function attach(chosen) {
	for (const file of chosen) {
		try {
			if (file.size > LONGEST_FILE) throw new Error("larger than 1 MiB");
			const text = new TextDecoder("utf-8", { fatal: true }).decode(await file.arrayBuffer());
			if (text.includes("\0")) throw new TypeError();
			files.push({ name: file.name, text });
		} catch (error) {
			say(`${file.name} cannot be attached: it is ${error instanceof TypeError ? "no text" : error.message}.`);
		}
	}
	showFiles();
	input.focus();
}

function showFiles() {
	$("files").hidden = !files.length;
	const without = (file) => {
		files = files.filter((each) => each !== file);
		showFiles();
	};
	$("files").replaceChildren(...files.map((file) => h("li", {}, file.name, button("×", () => without(file), { "aria-label": `Remove ${file.name}` }))));
}

// The frame

function fit() {
	input.rows = 1;
	while (input.rows < 12 && input.scrollHeight > input.clientHeight) input.rows++;
}

function view(name) {
	for (const each of ["chat", "server"]) {
		$(each).hidden = each !== name;
		$(`to-${each}`).setAttribute("aria-current", each === name ? "page" : "false");
	}
	server.show(name === "server");
}

function sidebar(shown) {
	document.body.classList.toggle("with-sidebar", shown);
	$("menu").setAttribute("aria-expanded", shown);
}

function otherTheme() {
	const now = document.documentElement.dataset.theme || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
	const other = now === "dark" ? "light" : "dark";
	document.documentElement.dataset.theme = other;
	keep("localStorage", "theme", other);
}

onKeyNeeded((problem) => {
	const dialog = $("key");
	$("key-problem").textContent = problem;
	$("key-input").value = dialog.returnValue = "";
	dialog.showModal();
	return new Promise((resolve) => {
		dialog.onclose = () => resolve(dialog.returnValue && $("key-input").value.replace(/[^\x21-\x7e]/g, ""));
	});
});

const on = (id, event, act) => $(id).addEventListener(event, act);
const clicks = {
	new: startAnew,
	menu: () => sidebar(!document.body.classList.contains("with-sidebar")),
	"to-chat": () => view("chat"),
	"to-server": () => view("server"),
	theme: otherTheme,
	stop: () => running.get(current.id)?.stop(),
	export: () => download(`${titleOf(current).replace(/[^\p{L}\p{N}]+/gu, "-")}.json`, store.exported([current])),
	"export-all": () => download("conversations.json", store.exported(conversations)),
	delete: removeConversation,
	"key-cancel": () => $("key").close(),
	"to-end": () => {
		atEnd = true;
		follow();
	},
};
for (const [id, act] of Object.entries(clicks)) on(id, "click", act);
for (const [id, use] of Object.entries({ attach, import: importFile })) {
	on(id, "change", ({ target }) => {
		use([...target.files]);
		target.value = "";
	});
}
on("composer", "submit", (event) => {
	event.preventDefault();
	send();
});
on("search", "input", list);
on("title", "change", ({ target }) => {
	current.title = target.value.trim();
	save(current, false);
});
on("input", "input", fit);
on("input", "keydown", (event) => {
	if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
	event.preventDefault();
	send();
});
on("log", "scroll", () => {
	if (log.scrollHeight - log.scrollTop - log.clientHeight < 60) atEnd = true;
	else if (log.scrollTop < scrolled) atEnd = false; // not where the text has only grown
	scrolled = log.scrollTop;
	$("to-end").hidden = atEnd;
});
on("messages", "click", ({ target }) => {
	if (target.closest(".markdown") && target.nodeName === "BUTTON") copy(target.closest("figure").querySelector("code").textContent);
});
document.addEventListener("keydown", (event) => {
	const typing = event.target.closest("input, textarea, select, dialog");
	if (event.key === "Escape" && !document.querySelector(":popover-open, dialog[open]")) {
		running.get(current.id)?.stop();
		sidebar(false);
	} else if (event.key === "/" && !typing && !event.ctrlKey && !event.metaKey) {
		event.preventDefault();
		view("chat");
		input.focus();
	}
});
document.addEventListener("dragover", (event) => {
	event.preventDefault();
	$("dropping").hidden = !event.dataTransfer.types.includes("Files");
});
document.addEventListener("dragleave", (event) => ($("dropping").hidden = !event.relatedTarget));
document.addEventListener("drop", (event) => {
	event.preventDefault();
	$("dropping").hidden = true;
	attach(event.dataTransfer.files);
});
new ResizeObserver(follow).observe($("messages"));
settings.onChanged((changed) => {
	current.settings = changed;
	if (conversations.includes(current)) save(current, false);
});

const found = await store.open();
if (!found) say("This browser stores nothing: conversations are lost when you close the tab.");
conversations = found ?? [];
open(conversations.find(({ id }) => location.hash === `#${id}`) ?? current);
input.focus();
askJson("v1/models").then(
	({ data }) => ($("model").textContent = data[0].id),
	(error) => say(error.message),
);
