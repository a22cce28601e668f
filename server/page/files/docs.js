// The page /docs: shows the endpoints of /openapi.json, with forms to try them.

import { origin } from "./api.js";
import { $, code, h, keep, kept } from "./dom.js";

const LONGEST = 200_000; // characters of an answer that are shown

$("key-input").value = kept("sessionStorage", "key") ?? "";
$("key-input").addEventListener("change", ({ target }) => {
	keep("sessionStorage", "key", target.value);
	load();
});
$("key-form").addEventListener("submit", (event) => event.preventDefault());

function send(path, method = "GET", body) {
	const headers = { accept: "application/json" };
	if ($("key-input").value) headers.authorization = `Bearer ${$("key-input").value}`;
	if (body) headers["content-type"] = "application/json";
	return fetch(origin + path, { method, headers, body, credentials: "omit", cache: "no-store" });
}

async function load() {
	try {
		const response = await send("/openapi.json");
		const found = await response.json();
		if (!response.ok) throw new Error(found.error.message);
		$("problem").textContent = "";
		const operations = Object.entries(found.paths).flatMap(([path, methods]) =>
			Object.entries(methods).map(([method, operation]) => view(path, method.toUpperCase(), operation, found)),
		);
		$("operations").replaceChildren(...operations);
	} catch (error) {
		$("problem").textContent = `The description of the API cannot be read: ${error.message}`;
	}
}

/** The schema to which a `$ref` refers. */
const resolved = (schema, whole) => (schema?.$ref ? schema.$ref.slice(2).split("/").reduce((found, name) => found[name], whole) : (schema ?? {}));

function view(path, method, operation, whole) {
	const schema = resolved(operation.requestBody?.content?.["application/json"]?.schema, whole);
	const required = new Set(schema.required);
	const rows = Object.entries(schema.properties ?? {}).map(([name, field]) =>
		h("tr", {}, h("td", {}, name), h("td", {}, typeOf(field, whole)), h("td", {}, required.has(name) ? "required" : "")),
	);
	const table = rows.length && h("table", { tabindex: 0 }, h("thead", {}, h("tr", {}, ...["Field", "Type", ""].map((head) => h("th", {}, head)))), h("tbody", {}, ...rows));
	const details = h("details", { class: "operation", id: `${method} ${path}` }, h("summary", {}, h("b", {}, method), " ", path));
	details.addEventListener("toggle", () => details.lastChild.nodeName === "SUMMARY" && details.append(h("div", {}, operation.description && h("p", {}, operation.description), trial(path, method, operation, schema), table || null)));
	return details;
}

/** A form that sends the request and shows the response. */
function trial(path, method, { parameters = [], requestBody }, schema) {
	const places = parameters.filter((each) => each.in === "path").map(({ name }) => h("input", { name, "aria-label": name, placeholder: name, required: "" }));
	const body = requestBody && h("textarea", { rows: 8, spellcheck: "false", "aria-label": "Body" });
	if (body) body.value = JSON.stringify(example(path, schema), null, 2);
	const result = h("div", { "aria-live": "polite" });
	const submit = async (event) => {
		event.preventDefault();
		const filled = places.reduce((whole, { name, value }) => whole.replace(`{${name}}`, encodeURIComponent(value).replaceAll("%2F", "/")), path);
		result.replaceChildren(h("p", { class: "hint" }, "Waiting…"));
		const began = performance.now();
		try {
			const response = await send(filled, method, body?.value);
			const text = await response.text();
			const took = `${response.status} ${response.statusText}, ${Math.round(performance.now() - began)} ms`;
			result.replaceChildren(code(took, laidOut(text).slice(0, LONGEST)));
		} catch (error) {
			result.replaceChildren(h("p", { class: "problem" }, `The server cannot be reached: ${error.message}`));
		}
	};
	return h("form", { onsubmit: submit }, ...places, body, h("div", { class: "row" }, h("span", { class: "space" }), h("button", { class: "strong" }, "Send")), result);
}

const EXAMPLES = {
	messages: [{ role: "user", content: "Hello" }],
	prompt: "Hello",
	tokens: [1, 2, 3],
	input: "Hello",
	max_tokens: 200,
};

/** Example values for the required fields, or if there are none, for the first one. */
function example(path, schema) {
	const options = schema.anyOf ? {} : (schema.properties ?? {});
	const named = Object.keys(EXAMPLES).filter((name) => name in options && name !== "max_tokens");
	const needed = named.filter((name) => schema.required?.includes(name));
	const limit = "max_tokens" in options ? ["max_tokens"] : [];
	return Object.fromEntries([...(needed.length ? needed : named.slice(0, 1)), ...limit].map((name) => [name, EXAMPLES[name]]));
}

function typeOf(field, whole) {
	const { anyOf, allOf, type, enum: words, const: one, items, description } = field;
	if (anyOf ?? allOf) return (anyOf ?? allOf).map((each) => typeOf(each, whole)).filter((each) => each !== "null").join(" or ");
	if (words) return words.join(", ");
	if (one) return String(one);
	if (field.$ref) return field.$ref.split("/").at(-1);
	const limits = [field.minimum != null && `from ${field.minimum}`, field.maximum != null && `to ${field.maximum}`, description].filter(Boolean).join(" ");
	return [type === "array" ? `list of ${typeOf(items ?? {}, whole)}` : (type ?? "any"), limits].filter(Boolean).join(" ");
}

function laidOut(text) {
	try {
		return JSON.stringify(JSON.parse(text), null, 2);
	} catch {
		return text;
	}
}

load();
