// Where oidc-provider keeps its rows: maps that forget nothing but what has expired.
// The adapter that comes with it keeps the last thousand rows, too few for a load test.

const rows = new Map(); // "<model>:<id>" -> { payload, expires }
const byGrant = new Map(); // grant id -> set of keys
const byUid = new Map(); // session uid -> session id

function read(key) {
  const row = rows.get(key);
  if (row && row.expires <= Date.now()) {
    rows.delete(key);
    return undefined;
  }
  return row?.payload;
}

// adapterFor returns an adapter class. clients: client id -> metadata; it may change
// at any time, and does so for the very next request.
export function adapterFor(clients) {
  return class Adapter {
    constructor(model) {
      this.model = model;
    }

    key(id) {
      return `${this.model}:${id}`;
    }

    async upsert(id, payload, expiresIn) {
      const expires = expiresIn ? Date.now() + expiresIn * 1000 : Infinity;
      rows.set(this.key(id), { payload, expires });
      if (this.model === 'Session') byUid.set(payload.uid, id);
      if (payload.grantId) {
        const keys = byGrant.get(payload.grantId) ?? new Set();
        byGrant.set(payload.grantId, keys.add(this.key(id)));
      }
    }

    async find(id) {
      if (this.model === 'Client' && clients.has(id)) return clients.get(id);
      return read(this.key(id));
    }

    async findByUid(uid) {
      return this.find(byUid.get(uid));
    }

    async findByUserCode() {
      return undefined; // the device flow is off
    }

    async consume(id) {
      const payload = read(this.key(id));
      if (payload) payload.consumed = Math.floor(Date.now() / 1000);
    }

    async destroy(id) {
      rows.delete(this.key(id));
    }

    async revokeByGrantId(grantId) {
      for (const key of byGrant.get(grantId) ?? []) rows.delete(key);
      byGrant.delete(grantId);
    }
  };
}
