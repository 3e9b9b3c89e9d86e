// Validates objects of others' kinds against the schemas that their projects generate from their CRDs, as the packages
// @kubernetes-models/… carry them. Objects come as a JSON array on standard input; what is wrong goes out as one.
// Those schemas allow fields that they do not know; a field that a schema never looks at is told here as unknown.
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';

const packages = {
  'argoproj.io': 'argo-cd',
  'cert-manager.io': 'cert-manager',
  'external-secrets.io': 'external-secrets',
  'monitoring.coreos.com': 'prometheus-operator',
};
// Whatever stands in there is somebody else's.
const free = /\/spec\/source\/helm\/valuesObject\//;

function watched(value, seen, path) {
  if (typeof value !== 'object' || value === null) return value;
  return new Proxy(value, {
    get(target, key) {
      if (typeof key !== 'string') return target[key];
      seen.add(`${path}/${key}`);
      return watched(target[key], seen, `${path}/${key}`);
    },
  });
}

function paths(value, path = '') {
  if (typeof value !== 'object' || value === null) return [];
  return Object.keys(value).flatMap((key) => [`${path}/${key}`, ...paths(value[key], `${path}/${key}`)]);
}

async function wrong(object) {
  const name = `${object.kind}/${object.metadata?.name}`;
  const [group, version] = object.apiVersion.split('/');
  const root = packages[group] && join(process.argv[2], 'node_modules/@kubernetes-models', packages[group]);
  if (!root) return [`${name}: no schema of ${object.apiVersion} is here`];
  const model = readFileSync(join(root, group, version, `${object.kind}.js`), 'utf8');
  const schema = /_schemas\/(\w+)\.js/.exec(model)[1];
  if (!readdirSync(join(root, '_schemas')).includes(`${schema}.js`)) return [`${name}: no schema ${schema}`];
  const { validate } = await import(pathToFileURL(join(root, '_schemas', `${schema}.js`)));
  const seen = new Set();
  if (!validate(watched(object, seen, ''))) {
    return validate.errors.map((error) => `${name}: ${error.instancePath} ${error.keyword} ${JSON.stringify(error.params)}`);
  }
  return paths(object).filter((path) => !seen.has(path) && !free.test(path)).map((path) => `${name}: ${path} is unknown`);
}

const objects = JSON.parse(readFileSync(0, 'utf8'));
console.log(JSON.stringify((await Promise.all(objects.map(wrong))).flat()));
