// Creates elements, and has helpers for copying, downloads and notices.

export const $ = (id) => document.getElementById(id);

/** An element.  Attributes such as `onclick` are listeners; false and null are omitted. */
export function h(tag, attributes = {}, ...children) {
	const element = document.createElement(tag);
	for (const [name, value] of Object.entries(attributes)) {
		if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
		else if (value != null && value !== false) element.setAttribute(name, value);
	}
	element.append(...children.filter((child) => child != null && child !== false));
	return element;
}

export const button = (text, onclick, attributes) => h("button", { type: "button", onclick, ...attributes }, text);

/** A box with a title and a button that copies its text. */
export function code(title, text) {
	const head = h("figcaption", {}, title, button("Copy", () => copy(text)));
	return h("figure", { class: "code" }, head, h("pre", { tabindex: 0 }, h("code", {}, text)));
}

/** crypto.randomUUID does not exist on plain HTTP, except for localhost. */
export const newId = () => Array.from(crypto.getRandomValues(new Uint8Array(12)), (byte) => byte.toString(16).padStart(2, "0")).join("");

export async function copy(text) {
	try {
		await navigator.clipboard.writeText(text);
	} catch {
		const area = h("textarea", { class: "unseen" }); // plain HTTP from another computer has no clipboard
		area.value = text;
		document.body.append(area);
		area.select();
		document.execCommand("copy");
		area.remove();
	}
	say("Copied");
}

/** Offers a file for download. */
export function download(name, text) {
	const href = URL.createObjectURL(new Blob([text], { type: "application/json" }));
	h("a", { href, download: name }).click();
	setTimeout(() => URL.revokeObjectURL(href), 10_000);
}

let ends;

/** Shows a line at the bottom of the page for a few seconds. */
export function say(text) {
	$("notice").textContent = text;
	$("notice").hidden = false;
	clearTimeout(ends);
	ends = setTimeout(() => ($("notice").hidden = true), 2000 + 50 * text.length);
}

/** A value in `localStorage` or `sessionStorage`; without storage, it is kept until the page is closed. */
export function keep(storage, name, value) {
	try {
		window[storage].setItem(name, value);
	} catch {}
}

export function kept(storage, name) {
	try {
		return window[storage].getItem(name);
	} catch {
		return null;
	}
}

export const count = (number, one) => `${number.toLocaleString("en")} ${one}${number === 1 ? "" : "s"}`;
export const seconds = (value) => `${value < 10 ? value.toFixed(1) : Math.round(value)} s`;
