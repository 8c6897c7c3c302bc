// The primitives of the wire by bare WebCrypto, as a browser has them: bytes, hashes, Ed25519, HPKE.
//
// Written from SECURITY's words and RFC 9180, not from the Python: `cm1.mjs` builds the formats on
// it. Nothing but `globalThis.crypto` is used.

const { subtle } = globalThis.crypto;

export const utf8 = (text) => new TextEncoder().encode(text);
export const text = (bytes) => new TextDecoder("utf-8", { fatal: true }).decode(bytes);
export const hex = (bytes) => [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
export const unhex = (digits) => Uint8Array.from(digits.match(/../g) ?? [], (two) => parseInt(two, 16));

export function concat(...parts) {
  const joined = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    joined.set(part, at);
    at += part.length;
  }
  return joined;
}

export const same = (left, right) => hex(left) === hex(right);

export const b64 = (bytes) =>
  btoa(String.fromCharCode(...bytes)).replaceAll("+", "-").replaceAll("/", "_").replace(/=+$/, "");

export function unb64(encoded) {
  const plain = encoded.replace(/=+$/, "").replaceAll("-", "+").replaceAll("_", "/");
  return Uint8Array.from(atob(plain), (character) => character.charCodeAt(0));
}

// Large arrays overflow the arguments of String.fromCharCode.
export function b64long(bytes) {
  let out = "";
  for (let at = 0; at < bytes.length; at += 3000) out += b64(bytes.subarray(at, at + 3000));
  return out;
}

export function base32(bytes) {
  let bits = "";
  for (const byte of bytes) bits += byte.toString(2).padStart(8, "0");
  const fives = bits.match(/.{1,5}/g).map((five) => parseInt(five.padEnd(5, "0"), 2));
  return fives.map((five) => "abcdefghijklmnopqrstuvwxyz234567"[five]).join("");
}

export function number(value, bytes, { little = false } = {}) {
  const out = new Uint8Array(bytes);
  for (let place = 0; place < bytes; place += 1) {
    out[little ? place : bytes - 1 - place] = Number((BigInt(value) >> BigInt(8 * place)) & 255n);
  }
  return out;
}

const bytesOf = (part) => (typeof part === "string" ? utf8(part) : part);

export function pae(...parts) {
  const pieces = [number(parts.length, 8, { little: true })];
  for (const part of parts.map(bytesOf)) pieces.push(number(part.length, 8, { little: true }), part);
  return concat(...pieces);
}

export const sha256 = async (bytes) => new Uint8Array(await subtle.digest("SHA-256", bytes));

export async function hmac(key, bytes) {
  // WebCrypto refuses an empty key; HMAC pads with zeros, so a zero key is the same.
  const raw = key.length ? key : new Uint8Array(32);
  const imported = await subtle.importKey("raw", raw, { name: "HMAC", hash: "SHA-256" }, false, ["sign"]);
  return new Uint8Array(await subtle.sign("HMAC", imported, bytes));
}

export const mac = (key, ...parts) => hmac(key, pae(...parts));

export async function idOf(prefix, ...parts) {
  return prefix + base32((await sha256(pae(...parts))).subarray(0, 16));
}

const PKCS8 = {
  Ed25519: unhex("302e020100300506032b657004220420"),
  X25519: unhex("302e020100300506032b656e04220420"),
};

async function privateKey(algorithm, raw, usages) {
  return subtle.importKey("pkcs8", concat(PKCS8[algorithm], raw), { name: algorithm }, true, usages);
}

async function publicOf(algorithm, raw, usages) {
  const exported = await subtle.exportKey("jwk", await privateKey(algorithm, raw, usages));
  return unb64(exported.x);
}

export async function signingKey(seed) {
  const key = await privateKey("Ed25519", seed, ["sign"]);
  const raw = await publicOf("Ed25519", seed, ["sign"]);
  const sign = async (...parts) =>
    new Uint8Array(await subtle.sign({ name: "Ed25519" }, key, pae(...parts)));
  return { seed, public: raw, sign };
}

export async function accepts(publicKey, signature, ...parts) {
  const key = await subtle.importKey("raw", publicKey, { name: "Ed25519" }, false, ["verify"]);
  return subtle.verify({ name: "Ed25519" }, key, signature, pae(...parts));
}

export const kemKey = async (raw) => ({ raw, public: await publicOf("X25519", raw, ["deriveBits"]) });

export async function agree(privateRaw, publicRaw) {
  const own = await privateKey("X25519", privateRaw, ["deriveBits"]);
  const other = await subtle.importKey("raw", publicRaw, { name: "X25519" }, false, []);
  return new Uint8Array(await subtle.deriveBits({ name: "X25519", public: other }, own, 256));
}

async function gcm(key, usage) {
  return subtle.importKey("raw", key, "AES-GCM", false, [usage]);
}

export async function gcmSeal(key, nonce, aad, plaintext) {
  const parameters = { name: "AES-GCM", iv: nonce, additionalData: aad };
  return new Uint8Array(await subtle.encrypt(parameters, await gcm(key, "encrypt"), plaintext));
}

export async function gcmOpen(key, nonce, aad, sealed) {
  const parameters = { name: "AES-GCM", iv: nonce, additionalData: aad };
  return new Uint8Array(await subtle.decrypt(parameters, await gcm(key, "decrypt"), sealed));
}

export async function hkdf(secret, salt, info, bytes) {
  const key = await subtle.importKey("raw", secret, "HKDF", false, ["deriveBits"]);
  const parameters = { name: "HKDF", hash: "SHA-256", salt, info };
  return new Uint8Array(await subtle.deriveBits(parameters, key, 8 * bytes));
}

// HPKE, RFC 9180, mode base: DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, AES-GCM.
const KEM_SUITE = concat(utf8("KEM"), number(0x0020, 2));
const AEAD_KEY_BYTES = { 1: 16, 2: 32 };

const labeledExtract = (suite, salt, label, input) =>
  hmac(salt, concat(utf8("HPKE-v1"), suite, utf8(label), input));

async function labeledExpand(suite, secret, label, info, length) {
  const labeled = concat(number(length, 2), utf8("HPKE-v1"), suite, utf8(label), info);
  let block = new Uint8Array();
  let out = new Uint8Array();
  for (let counter = 1; out.length < length; counter += 1) {
    block = await hmac(secret, concat(block, labeled, number(counter, 1)));
    out = concat(out, block);
  }
  return out.subarray(0, length);
}

async function sharedSecret(dh, enc, recipient) {
  const context = concat(enc, recipient);
  const prk = await labeledExtract(KEM_SUITE, new Uint8Array(), "eae_prk", dh);
  return labeledExpand(KEM_SUITE, prk, "shared_secret", context, 32);
}

async function schedule(shared, info, aead) {
  const suite = concat(utf8("HPKE"), number(0x0020, 2), number(0x0001, 2), number(aead, 2));
  const empty = new Uint8Array();
  const pskHash = await labeledExtract(suite, empty, "psk_id_hash", empty);
  const infoHash = await labeledExtract(suite, empty, "info_hash", info);
  const context = concat(new Uint8Array([0]), pskHash, infoHash);
  const secret = await labeledExtract(suite, shared, "secret", empty);
  return {
    key: await labeledExpand(suite, secret, "key", context, AEAD_KEY_BYTES[aead]),
    nonce: await labeledExpand(suite, secret, "base_nonce", context, 12),
  };
}

export async function hpkeSender(recipient, info, ephemeral, aead = 2) {
  const own = await kemKey(ephemeral);
  const shared = await sharedSecret(await agree(ephemeral, recipient), own.public, recipient);
  return { enc: own.public, shared, ...(await schedule(shared, info, aead)) };
}

export async function hpkeRecipient(enc, privateRaw, info, aead = 2) {
  const own = await kemKey(privateRaw);
  const shared = await sharedSecret(await agree(privateRaw, enc), enc, own.public);
  return { shared, ...(await schedule(shared, info, aead)) };
}

export async function hpkeSeal(recipient, info, plaintext, ephemeral) {
  const { enc, key, nonce } = await hpkeSender(recipient, info, ephemeral);
  return concat(enc, await gcmSeal(key, nonce, new Uint8Array(), plaintext));
}

export async function hpkeOpen(privateRaw, info, sealed) {
  const { key, nonce } = await hpkeRecipient(sealed.subarray(0, 32), privateRaw, info);
  return gcmOpen(key, nonce, new Uint8Array(), sealed.subarray(32));
}
