// What every Node.js client must do: see suite.py, whose twin this is. A client is a function that makes one from a key: an object with
// `call(action, parameters)`, which resolves to the answer or throws { status, code, message }.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { after, before, describe, it } from 'node:test';

const env = process.env;
export const endpoint = env.WHERRY_TEST_ENDPOINT;
export const region = env.WHERRY_TEST_REGION;
const keys = JSON.parse(env.WHERRY_TEST_KEYS);
const key = keys.owner;
const PATIENCE_MS = 90_000;

const TYPES = {
  '<string>': (value) => typeof value === 'string' && value !== '',
  '<integer>': Number.isInteger,
  '<number>': (value) => typeof value === 'number',
  '<list>': Array.isArray,
  '<time>': (value) => /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$/.test(value),
  '<json>': (value) => typeof JSON.parse(value) === 'object',
};

const inDays = (days) => new Date(Date.now() + days * 86_400_000).toISOString().replace(/\.\d+/, '');

// Texts by their length; see suite.py.
const TEXTS = {
  ...Object.fromEntries([64, 65, 128, 129, 255, 256, 257, 4097].map((length) => [`$text${length}`, 'a'.repeat(length)])),
  ...Object.fromEntries([2048, 2049].map((length) => [`$json${length}`, `{${' '.repeat(length - 2)}}`])),
  $token4096: `${'ICAg'.repeat(1021)}WyJhIiwiYiJd`,
};

// The cases that a case with `edges` stands for.
function plain(row) {
  if (!row.edges) return [row];
  return row.edges.flatMap(([parameter, past, code, atEdge]) => {
    const changed = (value, refused) => ({ ...row, name: `${row.name}: ${parameter} ${value}`, with: { ...row.with, [parameter]: value }, refused });
    return [...past.map((value) => changed(value, [400, code])), ...atEdge.map((value) => changed(value, row.then))];
  });
}

const at = (answer, path) => path.split('.').reduce((value, part) => value[part], answer);

export function suite(tag, make, more = () => {}) {
  describe(tag, () => {
    const clients = Object.fromEntries(Object.entries(keys).map(([name, key]) => [name, make(...key)]));
    const client = clients.owner;
    const known = {};

    async function refused(call, status, code, message = '') {
      const error = await call().then((answer) => assert.fail(`not refused: ${JSON.stringify(answer)}`), (error) => error);
      assert.equal(error.code, code, String(error.message));
      assert.ok([status, undefined].includes(error.status), `${error.status} is not ${status}`);
      assert.ok(error.message);
      assert.ok(error.message.includes(message), error.message);
    }

    before(async () => {
      const answer = await client.call('DescribeSourceServers', {});
      const free = answer.SourceServers.SourceServer.filter((source) => source.State === 'Available').map((source) => source.SourceId).sort();
      assert.equal(free.length, 2, 'the test gives two sources');
      const name = `cases-${tag}`;
      const job = await client.call('CreateReplicationJob', { RegionId: region, SourceId: free[0], SystemDiskSize: 40, Name: name });
      Object.assign(known, {
        $region: region, $source: free[0], $free_source: free[1], $job: job.JobId, $job_name: name,
        ...JSON.parse(env.WHERRY_TEST_KNOWN),
        ...TEXTS,
        ...Object.fromEntries([6, 8, 29, 31, 89, 91].map((days) => [`$in_${days}_days`, inDays(days)])),
      });
    });

    after(() => client.call('DeleteReplicationJob', { JobId: known.$job }));

    for (const row of JSON.parse(readFileSync(new URL('cases.json', import.meta.url))).flatMap(plain)) {
      it(row.name, async () => {
        const asked = Object.entries(row.with).filter(([, value]) => value !== null);
        const given = Object.fromEntries(asked.map(([name, value]) => [name, known[value] ?? value]));
        for (const [name, count, value] of row.many ?? []) {
          for (let n = 1; n <= count; n += 1) given[name.replace('%', n)] = value.replace('%', n);
        }
        const caller = clients[row.as ?? 'owner'];
        if (row.refused) return refused(() => caller.call(row.call, given), ...row.refused);
        const answer = await caller.call(row.call, given);
        for (const [name, path] of Object.entries(row.keep ?? {})) known[name] = at(answer, path);
        for (const [path, wanted] of Object.entries(row.answers ?? {})) {
          const found = at(answer, path);
          if (TYPES[wanted]) assert.ok(TYPES[wanted](found), `${path} is ${JSON.stringify(found)}, not ${wanted}`);
          else assert.deepStrictEqual(found, known[wanted] ?? wanted, path);
        }
      });
    }

    it('a wrong secret is told apart from an unknown key', async () => {
      await refused(() => make(key[0], 'not the secret').call('DescribeSourceServers', {}), 400, 'SignatureDoesNotMatch');
      await refused(() => make('WKnobody', key[1]).call('DescribeSourceServers', {}), 404, 'InvalidAccessKeyId.NotFound');
    });

    it('an account that calls too often is throttled', async () => {
      const flood = async (caller) => {
        for (let call = 0; call < 50; call += 1) await caller.call('DescribeSourceServers', {});
      };
      await refused(() => flood(clients.busy), 400, 'Throttling.User');
      await refused(() => flood(clients.insistent), 400, 'Throttling.Api');
    });

    it('a migration', async () => {
      const asked = {
        RegionId: region, SourceId: known.$free_source, SystemDiskSize: 20, Name: `migration-${tag}`, ClientToken: `token-${tag}`,
        ReplicationParameters: JSON.stringify({ bandwidth_limit: 0, compress_level: 1, checksum: true }),
      };
      const { JobId } = await client.call('CreateReplicationJob', asked);
      assert.equal((await client.call('CreateReplicationJob', asked)).JobId, JobId, 'the same token is the same job');
      await refused(() => client.call('CreateReplicationJob', { ...asked, SystemDiskSize: 30 }), 400, 'IdempotentParameterMismatch');
      await client.call('StartReplicationJob', { JobId });
      const deadline = Date.now() + PATIENCE_MS;
      let seen;
      while (Date.now() < deadline) {
        const answer = await client.call('DescribeReplicationJobs', { 'JobId.1': JobId });
        [seen] = answer.ReplicationJobs.ReplicationJob;
        if (!['Ready', 'Running'].includes(seen.Status)) break;
        await sleep(200);
      }
      assert.equal(seen.Status, 'Finished', JSON.stringify(seen));
      assert.match(seen.ImageId, /^m-/);
      assert.equal(seen.Progress, 100);
      await client.call('DeleteReplicationJob', { JobId });
      while (Date.now() < deadline) {
        const answer = await client.call('DescribeReplicationJobs', { 'JobId.1': JobId });
        if (answer.TotalCount === 0) return;
        await sleep(200);
      }
      assert.fail('the deleted job is still there');
    });

    more(client, known);
  });
}
