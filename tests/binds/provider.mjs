// A real OpenID provider, driven by lines on standard input; see tests/binds/oidc.rs.
//
//   {"rotate": true}                     other keys from now on
//   {"header": {…}, "claims": {…}}       a token signed by the provider's key for `header.alg`
//
// Each line is answered by one line of JSON. The first line out says where it listens.
import { createServer } from 'node:http';
import { createInterface } from 'node:readline';
import { SignJWT, exportJWK, generateKeyPair, importJWK } from 'jose';
import { Provider } from 'oidc-provider';

// Standard output is for answers alone; the provider likes to talk.
const say = (answer) => process.stdout.write(`${JSON.stringify(answer)}\n`);
console.log = console.info = console.warn = () => {};

const ALGORITHMS = ['ES256', 'RS256'];
let keys, handle;
let generation = 0;

async function rotate(issuer) {
  generation += 1;
  keys = {};
  for (const alg of ALGORITHMS) {
    const { privateKey } = await generateKeyPair(alg, { extractable: true });
    keys[alg] = { ...(await exportJWK(privateKey)), alg, use: 'sig', kid: `${alg}-${generation}` };
  }
  const provider = new Provider(issuer, {
    jwks: { keys: Object.values(keys) },
    clients: [{
      client_id: 'agent-1', client_secret: 'a-client-secret', grant_types: ['client_credentials'],
      redirect_uris: [], response_types: [], token_endpoint_auth_method: 'client_secret_post',
      id_token_signed_response_alg: 'ES256',
    }],
    features: {
      devInteractions: { enabled: false },
      clientCredentials: { enabled: true },
      resourceIndicators: {
        enabled: true,
        defaultResource: () => 'urn:attache',
        getResourceServerInfo: () => ({
          scope: 'use', audience: 'attache', accessTokenFormat: 'jwt', accessTokenTTL: 60,
          jwt: { sign: { alg: 'ES256' } },
        }),
      },
    },
  });
  handle = provider.callback();
}

const server = createServer((request, response) => handle(request, response));
await new Promise((ready) => server.listen(0, '127.0.0.1', ready));
const issuer = `http://127.0.0.1:${server.address().port}`;
await rotate(issuer);
say({ issuer });

for await (const line of createInterface({ input: process.stdin })) {
  const asked = JSON.parse(line);
  if (asked.rotate) {
    await rotate(issuer);
    say({});
    continue;
  }
  const { alg } = asked.header;
  // RSA keys sign by PS256, too: what is pinned is for the broker to say.
  const jwk = keys[alg] ?? keys.RS256;
  const key = await importJWK({ ...jwk, alg }, alg);
  const header = { kid: jwk.kid, ...asked.header };
  say({ token: await new SignJWT(asked.claims).setProtectedHeader(header).sign(key) });
}
process.exit(0);
