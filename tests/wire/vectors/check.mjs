// Reads what the Python made: `node check.mjs FILE` prints what it found, or fails with a reason.
//
// FILE is JSON: {mesh, entries, certificate, copies: [{copy, peer, kem}], receipts: {certificate,
// frame}, handshake: {broker, challenge, hello, welcome, token}, tunnel: {caller, callee, seed, offer,
// answer, said}}; bytes are base64url.

import { readFileSync } from "node:fs";

import * as f from "./formats.mjs";
import * as p from "./primitives.mjs";

const given = JSON.parse(readFileSync(process.argv[2], "utf8"));

function demand(holds, what) {
  if (!holds) throw new f.Refused(what);
}

function bodyOf(frame, kind) {
  const [, , said, ...rest] = frame.split(" ");
  demand(said === kind, `${kind} expected, not ${said}`);
  return JSON.parse(rest.join(" "));
}

async function readReceipts(chain) {
  const certificate = p.unb64(given.receipts.certificate);
  await f.certifier(chain, certificate);
  const device = f.fieldsOf(certificate);
  const [batch] = bodyOf(given.receipts.frame, "receipts.report").batches;
  demand(p.same(p.unb64(batch.certificate), await p.sha256(certificate)), "receipts' certificate");
  demand(batch.recipient === device.peer, "receipts' recipient");
  const parts = f.receiptParts(given.mesh, batch.items);
  demand(await p.accepts(p.unb64(device.sign), p.unb64(batch.signature), ...parts), "receipts' signature");
  return batch.items.map((item) => item.status);
}

async function readHandshake(chain) {
  const { broker, challenge, hello, welcome, token } = given.handshake;
  const greeting = bodyOf(challenge, "handshake.challenge");
  const key = p.unb64(greeting.key);
  demand(greeting.broker === broker && broker === (await f.brokerId(key)), "broker");

  const said = bodyOf(hello, "handshake.hello");
  const [claims, certificate] = [p.unb64(said.claims), p.unb64(said.certificate)];
  await f.certifier(chain, certificate);
  const helloParts = await f.helloParts(claims, certificate);
  const device = p.unb64(f.fieldsOf(certificate).sign);
  demand(await p.accepts(device, p.unb64(said.signature), ...helloParts), "hello's signature");
  const helloMac = await f.tokenMac(p.unb64(token), helloParts);
  demand(p.same(p.unb64(said.token_mac), helloMac), "hello's proof of the token");

  const answer = bodyOf(welcome, "handshake.welcome");
  const facts = p.unb64(answer.facts);
  const welcomeParts = await f.welcomeParts(facts, claims);
  demand(await p.accepts(key, p.unb64(answer.signature), ...welcomeParts), "welcome's signature");
  const welcomeMac = await f.tokenMac(p.unb64(token), welcomeParts);
  demand(p.same(p.unb64(answer.token_mac), welcomeMac), "welcome's proof of the token");
  const [claimed, told] = [JSON.parse(p.text(claims)), JSON.parse(p.text(facts))];
  demand(claimed.bn === told.bn && claimed.cn === told.cn, "nonces");
  return told.handle;
}

async function readTunnel(chain) {
  const { caller, callee, seed, offer, answer, said } = given.tunnel;
  const [asked, answered] = [p.unb64(offer), p.unb64(answer)];
  for (const [domain, blob, shown] of [
    [f.DOMAINS.tunnelOffer, asked, p.unb64(caller)], [f.DOMAINS.tunnelAnswer, answered, p.unb64(callee)],
  ]) {
    await f.certifier(chain, shown);
    demand(f.fieldsOf(blob).cert === p.b64(await p.sha256(shown)), "tunnel's certificate");
    demand(await f.isSignedBy(domain, blob, p.unb64(f.fieldsOf(shown).sign)), "tunnel's signature");
  }
  demand(f.fieldsOf(answered).offer === p.b64(await p.sha256(asked)), "tunnel's offer");
  const shared = await p.agree(p.unb64(seed), p.unb64(f.fieldsOf(asked).eph));
  const { toCallee, toCaller } = await f.tunnelDirections(shared, asked, answered);
  const words = [];
  for (const { to, sealed } of said) {
    words.push(p.text(await (to === "callee" ? toCallee : toCaller).open(p.unb64(sealed))));
  }
  return words;
}

const chain = await f.walk(given.mesh, given.entries.map(p.unb64));
const certificate = p.unb64(given.certificate);
const sender = await f.certifier(chain, certificate);
const opened = [];
for (const { copy, peer, kem } of given.copies) {
  const { header, plaintext } = await f.open(p.unb64(copy), certificate, p.unb64(kem), peer);
  opened.push({ id: header.id, ...f.unpackContent(plaintext) });
}
const members = Object.values(chain.members).map((one) => [one.name, one.removed ? "removed" : one.role]);
const found = {
  sender: sender.name,
  members: Object.fromEntries(members),
  opened,
  receipts: await readReceipts(chain),
  handle: await readHandshake(chain),
  tunnel: await readTunnel(chain),
};
process.stdout.write(`${JSON.stringify(found)}\n`);
