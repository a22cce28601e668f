// What OpenAI's compatibility test for gpt-oss asks of a server, with functions like its own (compatibility.json):
// @openai/agents calls each through both APIs, whole and streamed, and the chain of thought must be in its place.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { Agent, OpenAIChatCompletionsModel, OpenAIResponsesModel, Runner, setTracingDisabled, tool } from '@openai/agents';
import OpenAI from 'openai';

setTracingDisabled(true);
const client = new OpenAI({ baseURL: process.env.BASE_URL, apiKey: 'x', maxRetries: 0, timeout: 300_000 });
const cases = JSON.parse(readFileSync(new URL('compatibility.json', import.meta.url)));
const APIS = { chat: OpenAIChatCompletionsModel, responses: OpenAIResponsesModel };

/** What the raw answers must have somewhere. */
const holds = {
  chat: (answers) => answers.some(({ choices: [{ message }] }) => message.reasoning && message.reasoning_content),
  responses: ([first]) => {
    const [thought] = first.output.filter((item) => item.type === 'reasoning');
    return thought.content.length > 0 && thought.content.every((part) => part.type === 'reasoning_text' && part.text);
  },
};

/** What raw events must be among those of a stream. */
const tells = {
  chat: (events) => events.some((event) => event.choices?.[0]?.delta.reasoning),
  responses: (events) => ['delta', 'done'].every(
    (last) => events.some((event) => event.type === `response.reasoning_text.${last}`),
  ),
};

for (const [api, Model] of Object.entries(APIS)) {
  for (const { tool: name, parameters, input, arguments: expected, output } of cases) {
    for (const stream of [false, true]) {
      test(`${name}, ${api}${stream ? ', streamed' : ''}`, async () => {
        const description = 'For a test.';
        const called = tool({ name, description, parameters, strict: false, execute: async () => output });
        const runner = new Runner({ model: new Model(client, process.env.MODEL) });
        const result = await runner.run(new Agent({ name: 'one', tools: [called] }), input, { stream, maxTurns: 3 });
        const events = [];
        if (stream) {
          for await (const event of result) {
            if (event.type === 'raw_model_stream_event' && event.data.type === 'model') events.push(event.data.event);
          }
          await result.completed;
          assert.ok(tells[api](events));
        }
        const [call] = result.newItems.filter((item) => item.type === 'tool_call_item');
        assert.equal(call.rawItem.name, name);
        assert.deepEqual(JSON.parse(call.rawItem.arguments), expected);
        assert.equal(result.finalOutput, 'It is sunny in Paris.');
        if (!stream) assert.ok(holds[api](result.rawResponses.map((each) => each.providerData)));
      });
    }
  }
}
