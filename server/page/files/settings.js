// The settings of a conversation: a form, and the fields of a request.

import { $, keep, kept } from "./dom.js";

const form = $("settings-form");
const NUMBERS = ["temperature", "top_p", "max_completion_tokens", "thinking_token_budget"];

/** The settings that were changed last, for the next conversation. */
export function latest() {
	try {
		return JSON.parse(kept("localStorage", "settings")) ?? {};
	} catch {
		return {};
	}
}

export function show(settings) {
	for (const field of form.elements) if (field.name) field.value = settings[field.name] ?? "";
	check();
}

/** Calls `changed(settings)` when the user changes them. */
export function onChanged(changed) {
	form.addEventListener("input", () => {
		check();
		const settings = Object.fromEntries([...new FormData(form)].filter(([, value]) => value));
		keep("localStorage", "settings", JSON.stringify(settings));
		changed(settings);
	});
}

/** Shows what is wrong with the settings.  Returns whether they are valid. */
export function check() {
	let problem = "";
	try {
		tools(form.elements.tools.value);
	} catch (error) {
		problem = error.message;
	}
	$("tools-problem").textContent = problem;
	form.elements.tools.setAttribute("aria-invalid", Boolean(problem));
	return !problem && form.checkValidity();
}

/** The request's fields: those that are not empty. */
export function fields(settings) {
	const found = {};
	for (const name of NUMBERS) if (settings[name]) found[name] = Number(settings[name]);
	if (settings.effort) found.reasoning_effort = settings.effort;
	const declared = tools(settings.tools ?? "");
	return declared.length ? { ...found, tools: declared } : found;
}

/** Tools in the API's format, from a list of tools or functions.  Throws an Error with a message for the user. */
function tools(text) {
	if (!text.trim()) return [];
	let found;
	try {
		found = [JSON.parse(text)].flat();
	} catch (error) {
		throw new Error(`This is not JSON: ${error.message}`);
	}
	return found.map((tool, i) => {
		const { name, description, parameters, strict } = tool?.function ?? tool ?? {};
		if (typeof name !== "string") throw new Error(`Function ${i + 1} has no name.`);
		if (parameters != null && Object.getPrototypeOf(parameters) !== Object.prototype) {
			throw new Error(`The parameters of ${name} must be a JSON schema: an object.`);
		}
		return { type: "function", function: { name, description, parameters, strict } };
	});
}
