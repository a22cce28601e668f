// The server's API: requests with the key, errors as text, and event streams.

import { keep, kept } from "./dom.js";

const base = new URL("..", import.meta.url);
export const origin = base.href.replace(/\/$/, "");

let key = kept("sessionStorage", "key");
let asking = null;
let askForKey;

/** `asked(problem)` returns a key or null; it is called when the server needs one. */
export const onKeyNeeded = (asked) => (askForKey = asked);

/** A failed request; the message is for the user.  status 0: there was no response. */
export class Failure extends Error {
	constructor(status, message) {
		super(message);
		this.status = status;
	}
}

/** A successful response.  Throws Failure, or AbortError. */
export async function ask(path, body, signal) {
	for (;;) {
		const used = key;
		const response = await send(path, body, signal);
		if (response.ok) return response;
		if (response.status !== 401) throw await asFailure(response);
		if (key !== used) continue; // another request has found out the right one meanwhile
		asking ??= askForKey(used ? "The server does not know this key." : "").finally(() => (asking = null));
		const given = await asking;
		if (!given) throw new Failure(401, "The server needs a key.");
		key = given;
		keep("sessionStorage", "key", key);
	}
}

export const askJson = async (path, body) => (await ask(path, body)).json();

async function send(path, body, signal) {
	const headers = body ? { "content-type": "application/json" } : {};
	if (key) headers.authorization = `Bearer ${key}`;
	const options = { headers, signal, credentials: "omit", cache: "no-store" };
	if (body) Object.assign(options, { method: "POST", body: JSON.stringify(body) });
	try {
		return await fetch(new URL(path, base), options);
	} catch (error) {
		if (error.name === "AbortError") throw error;
		throw new Failure(0, "The server cannot be reached. Is it still running?");
	}
}

async function asFailure(response) {
	let message = `The server answered with status ${response.status}.`;
	try {
		message = (await response.json()).error.message;
	} catch {} // not JSON: the error is from a proxy
	const wait = response.headers.get("retry-after");
	if (response.status === 429) message = `The server is busy: ${message}.${wait ? ` Try again in ${wait} s.` : ""}`;
	return new Failure(response.status, message);
}

/**
 * The JSON of each server-sent event; {reading: [computed tokens, all tokens]} while the prompt is computed.
 *
 * Throws Failure if the stream ends without its end marker.
 */
export async function* events(response) {
	let rest = "";
	const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
	try {
		for (;;) {
			const { done, value } = await reader.read();
			if (done) break;
			const lines = (rest + value).split("\n");
			rest = lines.pop();
			for (const line of lines) {
				const reading = line.match(/^: prompt (\d+)\/(\d+)/);
				if (reading) yield { choices: [], reading: [Number(reading[1]), Number(reading[2])] };
				if (!line.startsWith("data:")) continue;
				const data = line.slice(5).trim();
				if (data === "[DONE]") return;
				const event = JSON.parse(data);
				if (event.error) throw new Failure(response.status, event.error.message);
				yield event;
			}
		}
	} catch (error) {
		if (error instanceof Failure || error.name === "AbortError") throw error;
	} finally {
		reader.cancel().catch(() => {});
	}
	throw new Failure(0, "The connection broke before the answer was complete.");
}
