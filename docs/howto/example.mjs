// The lab from JavaScript (Node 18 or newer, nothing to install): node example.mjs http://127.0.11.1:8480
import assert from "node:assert/strict";

const api = `${process.argv[2]}/v1`;
const phone = "SEPB000B4BA0AEE";

async function ask(method, path, body) {
  const headers = body === undefined ? {} : { "Content-Type": "application/json" };
  const answer = await fetch(api + path, { method, headers, body: body && JSON.stringify(body) });
  const value = await answer.json();
  if (!answer.ok) throw new Error(`${value.detail} (${value.mend})`); // a problem document, RFC 9457
  return value;
}
const post = (path, body = {}) => ask("POST", path, body);

// server-sent events, one by one
async function* events(query, signal) {
  const answer = await fetch(`${api}/events/stream?${query}`, { signal });
  let text = "";
  for await (const piece of answer.body.pipeThrough(new TextDecoderStream())) {
    text += piece;
    const blocks = text.split("\n\n");
    text = blocks.pop();
    for (const block of blocks) {
      const lines = block.split("\n").filter((line) => line.startsWith("data: "));
      if (lines.length && !block.includes("event: snapshot")) yield JSON.parse(lines.map((line) => line.slice(6)).join("\n"));
    }
  }
}

await post("/reset");
const stopped = new AbortController();
const { event: newest } = await ask("GET", "");
const registrations = events(`kind=phone.registered&after=${newest}`, stopped.signal);

await post("/faults", { id: "lost", point: "dhcp.request", action: "no-answer", match: { phone }, times: 1 });
await post(`/phones/${phone}/reset`);
assert.equal((await registrations.next()).value.call_manager, "ucm105pub");
stopped.abort();

const { fault } = await ask("DELETE", "/faults/lost");
assert.equal(fault.hits, 1); // the phone asked DHCP once more
const { value } = await post("/wait", { for: `phones.${phone}.registered == 'source'`, timeout_s: 10 });
assert.equal(value, true);
await assert.rejects(post("/operations", { do: "bot-phone" }), /boot-phone/);
console.log("as expected");
