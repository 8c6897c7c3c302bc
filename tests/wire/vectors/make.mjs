// Makes the vectors beside it, without any of our Python: `node make.mjs [FOLDER]`.
//
// Every key is SHA-256 of a label, so that a second run gives the same bytes;
// `test_vectors.py` runs it again and compares.

import { readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

import * as f from "./formats.mjs";
import * as p from "./primitives.mjs";

const here = dirname(fileURLToPath(import.meta.url));
const folder = process.argv[2] ?? here;
const NOW = 1_790_000_000_000;
const DAY = 24 * 3600 * 1000;

const seed = (label) => p.sha256(p.utf8(`claudemesh vectors: ${label}`));
const id = async (prefix, label) => prefix + p.base32((await seed(label)).subarray(0, 16));
const write = (name, value) => writeFileSync(join(folder, name), `${JSON.stringify(value, null, 1)}\n`);

// The published vectors first: what follows rests on this HPKE.
for (const known of JSON.parse(readFileSync(join(here, "hpke.json"), "utf8")).vectors) {
  const sender = await p.hpkeSender(
    p.unhex(known.pk_recipient), p.unhex(known.info), p.unhex(known.sk_ephemeral), known.aead,
  );
  const sealed = await p.gcmSeal(sender.key, sender.nonce, p.unhex(known.aad), p.unhex(known.plaintext));
  if (p.hex(sender.enc) !== known.enc || p.hex(sealed) !== known.ciphertext) {
    throw new Error(`HPKE with AEAD ${known.aead} does not give RFC 9180's ciphertext`);
  }
}

async function person(name) {
  const key = await p.signingKey(await seed(`${name} member`));
  return { name, key, id: await f.memberId(key.public) };
}
const [ada, bob, cleo, dan, hook] = await Promise.all(["ada", "bob", "cleo", "dan", "hook"].map(person));
const salt = (await seed("mesh salt")).subarray(0, 16);
const mesh = await f.meshId(ada.key.public, salt);

async function device(owner, handle) {
  const sign = await p.signingKey(await seed(`${handle} device`));
  const kem = await p.kemKey(await seed(`${handle} kem`));
  const anchor = `claude:${handle}`;
  return { owner, handle, sign, kem, anchor, peer: await f.peerId(mesh, owner.id, anchor) };
}
const machine = await seed("machine secret");

async function certify(of, notBefore = NOW - DAY / 2) {
  const fields = {
    v: 1, mesh, member: of.owner.id, peer: of.peer, handle: of.handle,
    anchor: p.b64(await f.anchorDigest(of.anchor)),
    sign: p.b64(of.sign.public), kem: p.b64(of.kem.public), kem_generation: 3,
    not_before: notBefore, not_after: notBefore + DAY, caps: ["message"],
    locality: p.hex(await p.mac(machine, f.DOMAINS.locality, of.sign.public)),
    "a field of later": { unknown: [1.5, null] },
  };
  return f.signJson(f.DOMAINS.certificate, fields, of.owner.key);
}
const adas = await device(ada, "ada");
const bobs = await device(bob, "bob-2");
const cleos = await device(cleo, "cleo.laptop");
const dans = await device(dan, "dan_x");
const certificate = await certify(adas);

write("keys.json", {
  pae: [
    { parts: [], bytes: p.hex(p.pae()) },
    { parts: [""], bytes: p.hex(p.pae("")) },
    { parts: ["test", "Grüße"], bytes: p.hex(p.pae("test", "Grüße")) },
  ],
  seed: p.b64(ada.key.seed),
  public: p.b64(ada.key.public),
  signed: ["claudemesh/test", "a", "bc"],
  signature: p.b64(await ada.key.sign("claudemesh/test", "a", "bc")),
  mac: p.b64(await p.mac(machine, "a", "bc")),
  machine: p.b64(machine),
  salt: p.b64(salt),
  member: ada.id,
  mesh,
  broker: await f.brokerId(ada.key.public),
  anchor: "claude:ada",
  peer: adas.peer,
  conversation: { participants: [bobs.peer, adas.peer], id: await f.conversation([adas.peer, bobs.peer]) },
});
write("certificate.json", {
  certificate: p.b64(certificate),
  hash: p.b64(await p.sha256(certificate)),
  member: p.b64(ada.key.public),
  other_member: p.b64(bob.key.public),
  machine: p.b64(machine),
  fields: f.fieldsOf(certificate),
});

// The chain: each way an entry can come about.
const entries = [];
const steps = [];

async function append(does, signer, fields) {
  const before = await f.walk(mesh, entries);
  const place = { v: 1, mesh, seq: entries.length + 1, prev: p.b64(before.head), at: NOW };
  const whole = { ...place, by: signer.id, ...fields };
  entries.push(await f.signJson(f.DOMAINS.membership, whole, signer.key));
  const chain = await f.walk(mesh, entries);
  const members = Object.values(chain.members).map((one) => [one.name, one.removed ? "removed" : one.role]);
  steps.push({
    does, entry: p.b64(entries.at(-1)), head: p.b64(chain.head),
    members: Object.fromEntries(members), revoked: chain.revoked,
  });
}
const whois = (one) => ({ member: one.id, key: p.b64(one.key.public), name: one.name });
const oneTime = await p.signingKey(await seed("invite"));
const invite = await f.signJson(f.DOMAINS.invite, {
  v: 1, mesh, id: p.base32((await seed("invite id")).subarray(0, 16)), role: "member", uses: 2,
  expires: NOW + DAY, by: bob.id, key: p.b64(oneTime.public),
}, bob.key);
const joining = async (one) => ({
  kind: "add", role: "member", ...whois(one), invite: p.b64(invite),
  proof: p.b64(await oneTime.sign(f.DOMAINS.join, mesh, f.fieldsOf(invite).id, one.id)),
});

await append("ada founds the mesh", ada, { kind: "found", ...whois(ada), salt: p.b64(salt), mesh_name: "uebung" });
await append("ada adds bob as admin", ada, { kind: "add", role: "admin", ...whois(bob) });
await append("cleo joins by bob's invite", cleo, await joining(cleo));
await append("dan joins by the same invite", dan, await joining(dan));
await append("ada makes cleo an admin", ada, { kind: "role", member: cleo.id, role: "admin" });
await append("ada adds a connector", ada, {
  kind: "add", role: "member", ...whois(hook), custody: "connector", scopes: ["topic:Übung"], expires: NOW + DAY,
});
await append("dan revokes a device of his own", dan, {
  kind: "revoke_device", member: dan.id, device: p.b64(await p.sha256(dans.sign.public)),
});
await append("cleo removes dan", cleo, { kind: "remove", member: dan.id });
write("chain.json", { mesh, name: "uebung", revoked_certificate: p.b64(await certify(dans)), steps });

// Envelopes to 1, 2, 3 and 256 readers.
const { head } = steps.at(-1);
const certHash = p.b64(await p.sha256(certificate));

async function envelope(label, readers, conv, content, extra = {}) {
  const fields = {
    v: 1, alg: "cm1", mesh, conv, kind: "message", id: await id("msg_", label), from: adas.peer, cert: certHash,
    mh: { seq: entries.length, head }, seq: 7, ts: NOW, exp: NOW + 7 * DAY,
    to: readers.map((one) => one.peer), kgen: readers.map((_, at) => at + 1), ...extra,
  };
  const plaintext = f.packContent(content.fields, content.text);
  const keys = readers.map((one) => one.kem.public);
  const made = await f.seal(
    fields, plaintext, keys, adas.sign, await seed(`${label} content key`), (at) => seed(`${label} ephemeral ${at}`),
  );
  return {
    certificate: p.b64(certificate), now_ms: NOW + 1000, content,
    kems: readers.map((one) => p.b64(one.kem.raw)),
    sealed: p.b64long(made.sealed),
    copies: p.b64(await p.sha256(p.concat(...made.copies))),
  };
}
write("envelope_1.json", await envelope(
  "one reader", [bobs], await f.conversation([adas.peer, bobs.peer]),
  { fields: { priority: "now", thread: "Umzug" }, text: "Grüße, 世界 👋" },
));
write("envelope_2.json", await envelope(
  "two readers", [bobs, cleos], await f.conversation([adas.peer, bobs.peer, cleos.peer]),
  {
    fields: { supersedes: await id("msg_", "one reader"), valid_if: { git_sha: "00c0ffee" } },
    text: "The review is of another commit now.",
  },
));
write("envelope_3.json", await envelope(
  "three readers", [bobs, cleos, dans], "@backend",
  { fields: { priority: "low" }, text: "x".repeat(5000) },
  { re: await id("msg_", "one reader"), hop: 1, via: "webhook" },
));
const crowd = [];
let kem = await seed("crowd");
for (let at = 0; at < 256; at += 1) {
  kem = await p.sha256(kem);
  crowd.push({ kem: await p.kemKey(kem), peer: await f.peerId(mesh, bob.id, `crowd:${at}`) });
}
const toAll = await envelope("256 readers", crowd, "*", { fields: {}, text: "to all" });
// Each key is the SHA-256 of the one before.
write("envelope_256.json", { ...toAll, kems: toAll.kems.slice(0, 1) });

// Receipts of bob's device for ada's messages.
const bobsCertificate = await certify(bobs);
const items = [];
const reasons = { declined: "no_key", withheld: "superseded" };
for (const [at, status] of ["delivered", "seen", "declined", "withheld"].entries()) {
  items.push({
    id: await id("msg_", `receipt ${at}`), header_hash: p.b64(await seed(`header ${at}`)), status,
    route: status === "seen" ? "tool" : "", reason: reasons[status] ?? "", at_ms: NOW + at,
  });
}
const batch = {
  sender: adas.peer, recipient: bobs.peer, certificate: p.b64(await p.sha256(bobsCertificate)), items,
  signature: p.b64(await bobs.sign.sign(...f.receiptParts(mesh, items))),
};
write("receipts.json", {
  mesh, certificate: p.b64(bobsCertificate), frame: `7 0 receipts.report ${JSON.stringify({ batches: [batch] })}`,
});

// A tunnel from ada to bob, and what is said in it.
const [adasEphemeral, bobsEphemeral] = await Promise.all(["ada's ephemeral", "bob's ephemeral"].map(seed));
const ephemeral = async (raw) => p.b64((await p.kemKey(raw)).public);
const tunnelOffer = await f.signJson(f.DOMAINS.tunnelOffer, {
  v: 1, mesh, caller: adas.peer, callee: bobs.peer, cert: certHash, eph: await ephemeral(adasEphemeral), at: NOW,
}, adas.sign);
const tunnelAnswer = await f.signJson(f.DOMAINS.tunnelAnswer, {
  v: 1, offer: p.b64(await p.sha256(tunnelOffer)), callee: bobs.peer,
  cert: p.b64(await p.sha256(bobsCertificate)), eph: await ephemeral(bobsEphemeral),
}, bobs.sign);
const sharedSecret = await p.agree(adasEphemeral, (await p.kemKey(bobsEphemeral)).public);
const tunnel = await f.tunnelDirections(sharedSecret, tunnelOffer, tunnelAnswer);
const said = [];
for (const [to, word] of [["callee", "one"], ["caller", "two"], ["callee", ""], ["callee", "Grüße"]]) {
  const sealed = await (to === "callee" ? tunnel.toCallee : tunnel.toCaller).seal(p.utf8(word));
  said.push({ to, word, sealed: p.b64(sealed) });
}
write("tunnel.json", {
  mesh, caller_certificate: p.b64(certificate), callee_certificate: p.b64(bobsCertificate),
  caller_seed: p.b64(adasEphemeral), callee_seed: p.b64(bobsEphemeral),
  offer: p.b64(tunnelOffer), answer: p.b64(tunnelAnswer), said,
});

// Hello and welcome, as frames.
const broker = await p.signingKey(await seed("broker"));
const brokerName = await f.brokerId(broker.public);
const [bn, cn, token] = await Promise.all(["broker nonce", "client nonce", "token"].map(seed));
const claims = p.utf8(JSON.stringify({
  v: 1, broker: brokerName, bn: p.b64(bn), cn: p.b64(cn), mode: "attach", mesh, peer: adas.peer, cert: certHash,
  head_seq: entries.length, head, version: "0.1.0", handles: ["ada", "ada-2"], session: { type: "human", host: "büro" },
}));
const facts = p.utf8(JSON.stringify({
  v: 1, broker: brokerName, bn: p.b64(bn), cn: p.b64(cn), peer: adas.peer, handle: "ada", fence: 3,
  head_seq: entries.length, head, now: NOW, version: "0.1.0", data_version: 1, lease: 90_000, credit: 64,
}));
const hello = await f.helloParts(claims, certificate);
const welcome = await f.welcomeParts(facts, claims);
const frame = (numbers, kind, body) => `${numbers} ${kind} ${JSON.stringify(body)}`;
write("handshake.json", {
  token: p.b64(token),
  broker: brokerName,
  challenge: frame("0 0", "handshake.challenge", {
    broker: brokerName, key: p.b64(broker.public), nonce: p.b64(bn), now_ms: NOW, version: "0.1.0", protocol: 1,
  }),
  hello: frame("1 0", "handshake.hello", {
    claims: p.b64(claims), certificate: p.b64(certificate), signature: p.b64(await adas.sign.sign(...hello)),
    token_mac: p.b64(await f.tokenMac(token, hello)), log: entries.map(p.b64),
  }),
  welcome: frame("0 1", "handshake.welcome", {
    facts: p.b64(facts), signature: p.b64(await broker.sign(...welcome)),
    token_mac: p.b64(await f.tokenMac(token, welcome)), entries: [],
  }),
});
