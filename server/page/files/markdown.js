// Puts Markdown that the server has rendered into the page, piece by piece and without flicker.
//
// The server's HTML contains no HTML that a model has written.  Even so, only the elements and attributes listed here
// are taken from it.  It is parsed in a separate document, in which nothing is loaded or executed.

import { askJson } from "./api.js";

const LONGEST = 60_000; // characters in one request; the server takes a little more
const KEPT = 400;

const ELEMENTS = new Set(
	"P BR HR H3 H4 H5 H6 EM STRONG S CODE PRE SPAN A UL OL LI BLOCKQUOTE TABLE THEAD TBODY TR TH TD FIGURE FIGCAPTION BUTTON".split(" "),
);
const ATTRIBUTES = new Set(["class", "href", "target", "rel", "start", "type", "tabindex"]);

const policy = window.trustedTypes?.createPolicy("page", { createHTML: (html) => html });

function nodesOf(html) {
	const { body } = new DOMParser().parseFromString(policy?.createHTML(html) ?? html, "text/html");
	return [...body.children].flatMap(clean);
}

/** A list with a copy that has only known elements and attributes; an empty list if the node is not known. */
function clean(node) {
	if (node.nodeType === Node.TEXT_NODE) return [new Text(node.data)];
	if (!ELEMENTS.has(node.nodeName)) return [];
	const copy = document.createElement(node.nodeName);
	for (const { name, value } of node.attributes) {
		if (ATTRIBUTES.has(name) && (name !== "href" || /^(https?|mailto):/i.test(value))) copy.setAttribute(name, value);
	}
	copy.append(...[...node.childNodes].flatMap(clean));
	return [copy];
}

/** Makes the children of `parent`, from index `from` on, equal to `nodes`; equal nodes are not replaced. */
function patch(parent, nodes, from = 0) {
	nodes.forEach((node, i) => {
		const old = parent.childNodes[from + i];
		if (!old) parent.append(node);
		else if (old.isEqualNode(node)) return;
		else if (old.nodeType === Node.TEXT_NODE && node.nodeType === Node.TEXT_NODE) old.data = node.data;
		else if (old.cloneNode().isEqualNode(node.cloneNode())) patch(old, [...node.childNodes]);
		else old.replaceWith(node);
	});
	while (parent.childNodes.length > from + nodes.length) parent.lastChild.remove();
}

/** The rendering of one text, which may grow, in one element. */
export class Markdown {
	text = "";
	shown = "";
	complete = true;
	settledLines = 0;
	settledNodes = 0;

	constructor(element) {
		this.element = element;
	}

	/** Shows `text` soon; a text that arrives during a rendering is rendered next.  `ended`: it will not grow. */
	async show(text, ended) {
		const normal = text.replace(/\r\n?/g, "\n");
		this.text = normal.toWellFormed?.() ?? normal; // half of an emoji is no text yet
		this.ended = ended;
		if (this.busy) return;
		this.busy = true;
		this.element.ariaBusy = "true";
		while (this.shown !== this.text || (this.ended && !this.complete)) {
			const began = performance.now();
			await this.render(this.text, this.ended);
			if (!this.ended) await new Promise((resolve) => setTimeout(resolve, Math.max(60, performance.now() - began)));
		}
		this.busy = false;
		this.element.ariaBusy = "false";
	}

	async render(text, ended) {
		// A link reference may be defined after its use: then settled blocks before it change.
		if (!text.startsWith(this.shown) || (ended && /^ {0,3}\[[^\]]+\]:/m.test(text))) this.settledLines = this.settledNodes = 0;
		const lines = text.split("\n");
		for (let more = true; more; ) {
			const rest = lines.slice(this.settledLines).join("\n");
			more = rest.length > LONGEST;
			const part = more ? rest.slice(0, rest.lastIndexOf("\n", LONGEST) + 1) : rest;
			const result = part ? await rendered(part) : { blocks: [], settled: 0, settled_lines: 0 };
			if (!result || (more && !result.settled)) {
				this.plain(rest); // it cannot be rendered: it is shown as it is
				break;
			}
			patch(this.element, result.blocks.flatMap(nodesOf), this.settledNodes);
			this.settledNodes += result.settled;
			this.settledLines += result.settled_lines;
		}
		this.shown = text;
		this.complete = ended;
	}

	plain(text) {
		const shown = document.createElement("p");
		shown.className = "plain";
		shown.textContent = text;
		patch(this.element, [shown], this.settledNodes);
	}
}

// Texts that are needed at the same time share a request; the latest results are cached.

const results = new Map();
let wanted = [];

function rendered(text) {
	if (results.has(text)) return results.get(text);
	return new Promise((resolve) => {
		if (!wanted.length) setTimeout(send);
		wanted.push({ text, resolve });
	});
}

async function send() {
	const left = wanted;
	wanted = [];
	while (left.length) {
		let [size, number] = [left[0].text.length, 1];
		while (number < Math.min(left.length, 200) && (size += left[number].text.length) <= LONGEST) number++;
		const batch = left.splice(0, number);
		const texts = batch.map(({ text }) => text);
		const found = await askJson("page/markdown", { texts }).catch(() => ({ texts: [] })); // others will say what is wrong
		batch.forEach(({ text, resolve }, i) => {
			resolve(found.texts[i]);
			if (found.texts[i]) results.set(text, found.texts[i]);
		});
		for (const oldest of [...results.keys()].slice(0, -KEPT)) results.delete(oldest);
	}
}
