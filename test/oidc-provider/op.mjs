// A spec-strict OpenID provider for the tests, on loopback only. Every login and
// consent approves itself: login_hint selects the account, login_hint=deny refuses.
//
// OIDC_OPTIONS is a JSON object:
//   port              to listen on; 0 or absent: the kernel chooses
//   clients           client metadata (OpenID Connect Dynamic Client Registration §2)
//   access_token_ttl  seconds; 0 or absent: 60
//
// When it is ready it prints one JSON line: {"issuer": …, "control": …}.
//
// Control, on an address of its own:
//   PATCH /clients/<id>  {"client_secret": …}  changes the client's metadata at once
//   GET   /requests      {"<grant type>": n}   token requests so far, refused ones too
import { createServer } from 'node:http';
import { generateKeyPairSync, randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { Provider } from 'oidc-provider';
import { adapterFor } from './adapter.mjs';

const options = JSON.parse(process.env.OIDC_OPTIONS || '{}');

async function listen(server, port) {
  server.listen(port, '127.0.0.1');
  await once(server, 'listening');
  return `http://127.0.0.1:${server.address().port}`;
}

// The issuer holds the port, so the port comes first.
const web = createServer();
const issuer = await listen(web, options.port ?? 0);

const clients = new Map((options.clients ?? []).map((c) => [c.client_id, {
  grant_types: ['authorization_code', 'refresh_token'],
  response_types: ['code'],
  scope: 'openid email profile offline_access',
  ...c,
}]));

const key = generateKeyPairSync('rsa', { modulusLength: 2048 }).privateKey.export({ format: 'jwk' });

const provider = new Provider(issuer, {
  adapter: adapterFor(clients),
  jwks: { keys: [{ ...key, use: 'sig', alg: 'RS256', kid: randomUUID() }] },
  cookies: { keys: [randomUUID()] },
  pkce: { required: () => true },
  rotateRefreshToken: true,
  issueRefreshToken: (ctx, client) => client.grantTypeAllowed('refresh_token'),
  ttl: {
    AccessToken: options.access_token_ttl || 60, AuthorizationCode: 60, IdToken: 3600,
    RefreshToken: 86400, Interaction: 600, Session: 86400, Grant: 86400,
  },
  interactions: { url: (ctx, interaction) => `/auto/${interaction.uid}` },
  features: {
    devInteractions: { enabled: false },
    introspection: { enabled: true },
    revocation: { enabled: true },
  },
  findAccount: async (ctx, sub) => ({
    accountId: sub,
    claims: async () => ({ sub, name: sub, email: `${sub}@example.test`, email_verified: true }),
  }),
  claims: { openid: ['sub'], email: ['email', 'email_verified'], profile: ['name'] },
  renderError: async (ctx, out) => { ctx.type = 'json'; ctx.body = out; },
});

const requests = {};
provider.use(async (ctx, next) => {
  await next();
  if (ctx.method === 'POST' && ctx.path === '/token') {
    const grant = ctx.oidc?.params?.grant_type ?? 'unreadable';
    requests[grant] = (requests[grant] ?? 0) + 1;
  }
});

async function consent(interaction) {
  const { grantId, session, params, prompt: { details } } = interaction;
  const grant = grantId
    ? await provider.Grant.find(grantId)
    : new provider.Grant({ accountId: session.accountId, clientId: params.client_id });
  if (details.missingOIDCScope) grant.addOIDCScope(details.missingOIDCScope.join(' '));
  if (details.missingOIDCClaims) grant.addOIDCClaims(details.missingOIDCClaims);
  return { consent: { grantId: await grant.save() } };
}

provider.use(async (ctx, next) => {
  if (!ctx.path.startsWith('/auto/')) return next();
  const interaction = await provider.interactionDetails(ctx.req, ctx.res);
  const account = interaction.params.login_hint || 'alice';
  let result;
  if (account === 'deny') result = { error: 'access_denied', error_description: 'the user said no' };
  else if (interaction.prompt.name === 'login') result = { login: { accountId: account } };
  else result = await consent(interaction);
  await provider.interactionFinished(ctx.req, ctx.res, result, { mergeWithLastSubmission: true });
  ctx.respond = false;
  return undefined;
});

web.on('request', provider.callback());

const control = createServer(async (req, res) => {
  const answer = (status, body) => {
    res.writeHead(status, { 'content-type': 'application/json' });
    res.end(JSON.stringify(body));
  };
  const [, collection, id] = req.url.split('/').map(decodeURIComponent);
  if (req.method === 'GET' && collection === 'requests') return answer(200, requests);
  if (req.method !== 'PATCH' || collection !== 'clients' || !clients.has(id)) return answer(404, {});
  try {
    clients.set(id, { ...clients.get(id), ...JSON.parse((await req.toArray()).join('')) });
    return answer(200, {});
  } catch (err) {
    return answer(400, { error: err.message });
  }
});

console.log(JSON.stringify({ issuer, control: await listen(control, 0) }));
