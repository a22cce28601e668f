// The view "Server": the model, live metrics, and commands to call the server from programs.

import { ask, askJson, origin } from "./api.js";
import { $, button, code, h } from "./dom.js";

const EVERY_MS = 2000;
const KEPT = 300; // looks: ten minutes
const WIDTH = 300;
const HEIGHT = 72;

/** Name → value of the metrics without labels. */
export async function metrics() {
	const lines = (await (await ask("metrics")).text()).matchAll(/^(\w+) (\S+)$/gm);
	return Object.fromEntries(Array.from(lines, ([, name, value]) => [name, Number(value)]));
}

const number = (value) => value.toLocaleString("en", { maximumFractionDigits: value < 10 ? 1 : 0 });
const percent = (share) => `${number(100 * share)} %`;
const rate = (name) => (now, before) => Math.max(0, now[name] - before[name]) / (now.at - before.at);
const hits = (now) => now.gptoss_prefix_cache_hits_total / (now.gptoss_prefix_cache_queries_total || 1);

/** The graphs: name, format of a value, and the value computed from two samples, `now` and the previous one. */
const PLOTS = [
	["Writing", (value) => `${number(value)} tokens/s`, rate("gptoss_generation_tokens_total")],
	["Reading", (value) => `${number(value)} tokens/s`, rate("gptoss_prompt_tokens_total")],
	["Requests running", number, (now) => now.gptoss_num_requests_running],
	["Requests waiting", number, (now) => now.gptoss_num_requests_waiting],
	["Cache in use", percent, (now) => now.gptoss_kv_cache_usage_perc],
	["Prompts found in the cache", percent, hits],
];

const facts = h("dl");
const programs = h("div");
const problem = h("p", { class: "problem", role: "alert" });
const figures = PLOTS.map(([name]) => h("figure", { class: "plot" }, h("figcaption", {}, name)));
const looks = [];
let timer;

/** Polls the server while the view is shown. */
export function show(shown) {
	clearInterval(timer);
	if (!shown) return;
	const parts = [h("h1", {}, "Server"), problem, facts, h("div", { class: "plots" }, ...figures), programs];
	if (!$("server").firstChild) $("server").append(h("div", { class: "column broad" }, ...parts));
	timer = setInterval(look, EVERY_MS);
	look();
}

async function look() {
	if (document.hidden) return;
	try {
		const now = { at: performance.now() / 1000, ...(await metrics()) };
		if (!facts.firstChild) await describe();
		looks.push(now);
		if (looks.length > KEPT) looks.shift();
		if (looks.length > 1) figures.forEach((figure, i) => draw(figure, ...PLOTS[i]));
		problem.textContent = "";
	} catch (error) {
		problem.textContent = error.message;
	}
}

async function describe() {
	const { model, max_context: context, facts: others, snippets } = await askJson("page/server");
	const rows = [["model", model], ["context", `${number(context)} tokens`], ...others];
	const shown = h("div");
	const choose = ({ needs, parts }, chosen) => {
		for (const tab of tabs) tab.setAttribute("aria-pressed", tab === chosen);
		const texts = parts.map(([where, text]) => code(where, text.replaceAll("{origin}", origin)));
		shown.replaceChildren(...(needs ? [h("p", { class: "hint" }, `It needs ${needs}, which this server does not have.`)] : texts));
	};
	const tabs = snippets.map((snippet) => button(snippet.name, ({ target }) => choose(snippet, target)));
	choose(snippets[0], tabs[0]);
	facts.append(...rows.flatMap(([name, value]) => [h("dt", {}, name), h("dd", {}, value)]));
	programs.append(h("h2", {}, "Ask it from a program"), h("div", { class: "row", role: "group", "aria-label": "Program" }, ...tabs), shown);
}

function draw(figure, name, shown, value) {
	const values = looks.slice(1).map((now, i) => value(now, looks[i]));
	const most = Math.max(...values);
	const [first, last] = [looks[1].at, looks.at(-1).at];
	const points = values.map((each, i) => {
		const across = last > first ? (looks[i + 1].at - first) / (last - first) : 1;
		return `${across * WIDTH},${HEIGHT - 2 - (each / (most || 1)) * (HEIGHT - 4)}`;
	});
	const time = `last ${Math.ceil((last - first) / 60) || 1} min`;
	const label = `${name}: ${shown(values.at(-1))} now, ${shown(most)} at most in the ${time}`;
	const picture = svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img", "aria-label": label });
	picture.append(svg("polyline", { points: `0,${HEIGHT} ${points.join(" ")} ${WIDTH},${HEIGHT}`, class: "area" }));
	picture.append(svg("polyline", { points: points.join(" "), class: "line" }));
	const foot = h("p", { class: "hint", "aria-hidden": "true" }, time, h("span", {}, `most ${shown(most)}`));
	figure.replaceChildren(h("figcaption", {}, name, h("strong", {}, shown(values.at(-1)))), picture, foot);
}

function svg(tag, attributes) {
	const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
	for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
	return element;
}
