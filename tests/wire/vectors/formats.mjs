// The formats of the wire as a browser would write and read them: certificate, membership, envelope,
// receipt, hello and welcome.
//
// `make.mjs` makes the vectors with it, `check.mjs` reads with it what the Python made. JSON is
// written in the order a program happens to have its fields: what counts are the bytes as sent.

import {
  accepts, b64, base32, concat, gcmOpen, gcmSeal, hkdf, hmac, hpkeOpen, hpkeSeal, idOf, mac, number, pae,
  same, sha256, text, unb64, utf8,
} from "./primitives.mjs";

export const DOMAINS = {
  certificate: "claudemesh/certificate/v1",
  membership: "claudemesh/membership/v1",
  invite: "claudemesh/invite/v1",
  join: "claudemesh/join/v1",
  envelope: "claudemesh/env/v1",
  slot: "claudemesh/env/v1/slot",
  commit: "claudemesh/commit",
  receipt: "claudemesh/receipt/v1",
  hello: "claudemesh/hello/v1",
  welcome: "claudemesh/welcome/v1",
  locality: "claudemesh/locality/v1",
  tunnelOffer: "claudemesh/tunnel-offer/v1",
  tunnelAnswer: "claudemesh/tunnel-answer/v1",
  tunnelKeys: "claudemesh/tunnel-keys/v1",
};
const SIGNATURE = 64;
const SLOT = 80;
const HASH = 32;

export class Refused extends Error {}

function demand(holds, what) {
  if (!holds) throw new Refused(what);
}

// Signed JSON: payload || signature.
export async function signJson(domain, fields, key) {
  const payload = utf8(JSON.stringify(fields));
  return concat(payload, await key.sign(domain, payload));
}

export const fieldsOf = (blob) => JSON.parse(text(blob.subarray(0, blob.length - SIGNATURE)));

export async function isSignedBy(domain, blob, publicKey) {
  const cut = blob.length - SIGNATURE;
  return accepts(publicKey, blob.subarray(cut), domain, blob.subarray(0, cut));
}

export const memberId = (publicKey) => idOf("mem_", "claudemesh/member/v1", publicKey);
export const meshId = (publicKey, salt) => idOf("mesh_", "claudemesh/mesh/v1", publicKey, salt);
export const anchorDigest = (anchor) => sha256(pae("claudemesh/anchor/v1", anchor));
export const peerId = async (mesh, member, anchor) =>
  idOf("p_", "claudemesh/peer/v1", mesh, member, await anchorDigest(anchor));

export async function conversation(participants) {
  const names = [...new Set(participants)].sort().join("\n");
  return "d_" + base32((await sha256(utf8(`claudemesh/conversation/v1\n${names}`))).subarray(0, 16));
}

// The membership chain.
const may = (role, given) => role === "owner" || (role === "admin" && given !== "owner");

export async function walk(mesh, blobs) {
  const chain = { mesh, seq: 0, head: new Uint8Array(), members: {}, revoked: [], uses: {} };
  for (const blob of blobs) await follow(chain, blob);
  return chain;
}

async function follow(chain, blob) {
  const said = fieldsOf(blob);
  demand(said.v === 1 && said.mesh === chain.mesh, "wrong mesh or version");
  demand(said.seq === chain.seq + 1, "gap");
  demand(said.prev === b64(chain.head), "fork");
  const signer = chain.members[said.by];
  if (said.kind === "found") await found(chain, said, blob);
  else if (said.kind === "add" && said.invite) await join(chain, said, blob);
  else {
    demand(signer && !signer.removed, "signer is no member");
    demand(await isSignedBy(DOMAINS.membership, blob, signer.key), "signature");
    await change(chain, said, signer);
  }
  chain.seq = said.seq;
  chain.head = await sha256(blob);
}

async function found(chain, said, blob) {
  const key = unb64(said.key);
  demand(said.seq === 1, "found again");
  demand(said.by === said.member && said.by === (await memberId(key)), "founder's id");
  demand(chain.mesh === (await meshId(key, unb64(said.salt))), "mesh id");
  demand(await isSignedBy(DOMAINS.membership, blob, key), "founder's signature");
  chain.members[said.member] = { key, name: said.name, role: "owner" };
}

async function enter(chain, said) {
  const key = unb64(said.key);
  const known = chain.members[said.member];
  demand(said.member === (await memberId(key)), "member's id");
  demand(!known || known.removed, "member already");
  const namesakes = Object.values(chain.members).filter((one) => !one.removed && one.name === said.name);
  demand(namesakes.length === 0, "name taken");
  chain.members[said.member] = { key, name: said.name, role: said.role };
}

async function join(chain, said, blob) {
  const invite = unb64(said.invite);
  const granted = fieldsOf(invite);
  const admin = chain.members[granted.by];
  demand(said.by === said.member && !chain.members[said.member], "joiner");
  demand(await isSignedBy(DOMAINS.membership, blob, unb64(said.key)), "joiner's signature");
  demand(admin && !admin.removed && may(admin.role, granted.role), "inviter's right");
  demand(await isSignedBy(DOMAINS.invite, invite, admin.key), "invite's signature");
  demand(granted.mesh === chain.mesh && granted.role === said.role, "invite's mesh and role");
  demand((chain.uses[granted.id] ?? 0) < granted.uses && said.at <= granted.expires, "invite is over");
  const proof = [DOMAINS.join, granted.mesh, granted.id, said.member];
  demand(await accepts(unb64(granted.key), unb64(said.proof), ...proof), "proof");
  await enter(chain, said);
  chain.uses[granted.id] = (chain.uses[granted.id] ?? 0) + 1;
}

async function change(chain, said, signer) {
  const target = chain.members[said.member];
  const self = said.by === said.member;
  if (said.kind === "add") {
    demand(may(signer.role, said.role), "may add");
    return enter(chain, said);
  }
  demand(target && !target.removed, "target");
  demand(may(signer.role, target.role) || (self && said.kind !== "role"), "may change");
  if (said.kind === "remove") target.removed = true;
  else if (said.kind === "role") target.role = said.role;
  else if (said.kind === "revoke_device") chain.revoked.push([said.member, said.device]);
  else demand(said.kind === "custody", "kind");
  const owners = Object.values(chain.members).filter((one) => !one.removed && one.role === "owner");
  demand(owners.length > 0, "last owner");
}

export async function certifier(chain, blob) {
  const said = fieldsOf(blob);
  const peer = await idOf("p_", "claudemesh/peer/v1", said.mesh, said.member, unb64(said.anchor));
  demand(said.peer === peer, "certificate's peer");
  const member = chain.members[said.member];
  demand(said.mesh === chain.mesh && member && !member.removed, "certificate's member");
  demand(await isSignedBy(DOMAINS.certificate, blob, member.key), "certificate's signature");
  const device = b64(await sha256(unb64(said.sign)));
  demand(!chain.revoked.some(([id, key]) => id === said.member && key === device), "device revoked");
  return member;
}

// The envelope.
export function pad(plaintext) {
  const needed = plaintext.length + 1;
  const step = needed <= 4096 ? 256 : 4096;
  const padded = new Uint8Array(Math.ceil(needed / step) * step);
  padded.set(plaintext);
  padded[plaintext.length] = 0x80;
  return padded;
}

function unpad(padded) {
  const end = padded.findLastIndex((byte) => byte !== 0);
  demand(padded[end] === 0x80, "padding");
  return padded.subarray(0, end);
}

const cut = (bytes, size) =>
  Array.from({ length: bytes.length / size }, (_, at) => bytes.subarray(at * size, (at + 1) * size));
const commitment = (contentKey) => hmac(contentKey, utf8(DOMAINS.commit));
const layout = (header, middle, ...rest) =>
  concat(number(1, 1), number(header.length, 2), number(middle.length, 4), header, middle, ...rest);

export async function seal(fields, plaintext, readers, device, contentKey, ephemeral) {
  const header = utf8(JSON.stringify({ ...fields, kc: b64(await commitment(contentKey)) }));
  const hh = await sha256(header);
  const info = concat(utf8(DOMAINS.slot), hh);
  const slots = [];
  for (const [at, reader] of readers.entries()) {
    slots.push(await hpkeSeal(reader, info, contentKey, await ephemeral(at)));
  }
  const body = await gcmSeal(contentKey, new Uint8Array(12), hh, pad(plaintext));
  const hashes = concat(...(await Promise.all(slots.map(sha256))));
  const signature = await device.sign(DOMAINS.envelope, header, await sha256(hashes), await sha256(body));
  return {
    header,
    sealed: layout(header, concat(...slots), body, signature),
    copies: slots.map((slot) => layout(header, hashes, slot, body, signature)),
  };
}

export async function open(copy, certificate, kemPrivate, peer) {
  const view = new DataView(copy.buffer, copy.byteOffset);
  demand(view.getUint8(0) === 1, "version");
  const headerEnd = 7 + view.getUint16(1);
  const hashesEnd = headerEnd + view.getUint32(3);
  const header = copy.subarray(7, headerEnd);
  const hashes = copy.subarray(headerEnd, hashesEnd);
  const slot = copy.subarray(hashesEnd, hashesEnd + SLOT);
  const body = copy.subarray(hashesEnd + SLOT, copy.length - SIGNATURE);
  const said = JSON.parse(text(header));
  const device = fieldsOf(certificate);
  demand(said.v === 1 && said.alg === "cm1", "version or algorithm");
  demand(said.cert === b64(await sha256(certificate)) && said.from === device.peer, "certificate");
  const signed = [DOMAINS.envelope, header, await sha256(hashes), await sha256(body)];
  const signature = copy.subarray(copy.length - SIGNATURE);
  demand(await accepts(unb64(device.sign), signature, ...signed), "signature");
  demand(hashes.length === said.to.length * HASH, "hashes");
  const position = said.to.indexOf(peer);
  demand(position >= 0, "not addressed");
  demand(same(await sha256(slot), cut(hashes, HASH)[position]), "slot");
  const hh = await sha256(header);
  const contentKey = await hpkeOpen(kemPrivate, concat(utf8(DOMAINS.slot), hh), slot);
  demand(b64(await commitment(contentKey)) === said.kc, "commitment");
  return { header: said, plaintext: unpad(await gcmOpen(contentKey, new Uint8Array(12), hh, body)) };
}

// What is sealed in a message: fields behind their length, then the text.
export const packContent = (fields, message) => {
  const json = utf8(JSON.stringify(fields));
  return concat(number(json.length, 4), json, utf8(message));
};

export function unpackContent(plaintext) {
  const length = new DataView(plaintext.buffer, plaintext.byteOffset).getUint32(0);
  const fields = JSON.parse(text(plaintext.subarray(4, 4 + length)));
  return { fields, text: text(plaintext.subarray(4 + length)) };
}

// Receipts: `items` as they stand in JSON, hashes as base64url.
export function receiptParts(mesh, items) {
  const parts = [DOMAINS.receipt, mesh];
  for (const item of items) {
    const status = item.reason ? `${item.status}(${item.reason})` : item.status;
    parts.push(item.id, unb64(item.header_hash), status, item.route ?? "", String(item.at_ms));
  }
  return parts;
}

// A tunnel: two signed ephemeral keys, and a key for each direction with a counter as its nonce.
export async function tunnelDirections(shared, offer, answer) {
  const transcript = await sha256(pae(DOMAINS.tunnelKeys, offer, answer));
  const made = await hkdf(shared, transcript, utf8(DOMAINS.tunnelKeys), 64);
  const direction = (key) => {
    let count = 0;
    const nonce = () => number(count++, 12);
    return {
      seal: (piece) => gcmSeal(key, nonce(), transcript, piece),
      open: (sealed) => gcmOpen(key, nonce(), transcript, sealed),
    };
  };
  return { toCallee: direction(made.subarray(0, 32)), toCaller: direction(made.subarray(32)) };
}

// Hello and welcome.
export const helloParts = async (claims, certificate) => [DOMAINS.hello, claims, await sha256(certificate)];
export const welcomeParts = async (facts, claims) => [DOMAINS.welcome, facts, await sha256(claims)];
export const tokenMac = (token, parts) => mac(token, ...parts);
export const brokerId = async (publicKey) => "b_" + base32((await sha256(publicKey)).subarray(0, 16));
