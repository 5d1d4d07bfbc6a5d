// A client that openapi-typescript generates of the gateway's own description, and that openapi-fetch drives: it is checked by the compiler
// first, then it calls. What signs is all that its user writes.

import assert from 'node:assert/strict';
import { createHash, createHmac, randomUUID } from 'node:crypto';
import { it } from 'node:test';
import createClient, { type Middleware } from 'openapi-fetch';
import type { components, paths } from './api.d.ts';

const env = process.env as Record<string, string>;
const region = env.WHERRY_TEST_REGION;
const [id, secret]: [string, string] = JSON.parse(env.WHERRY_TEST_KEYS).owner;

const sha256 = (text: string) => createHash('sha256').update(text).digest('hex');

/** Signature V3, ACS3-HMAC-SHA256. The operation is the last part of the path. */
const signed: Middleware = {
  async onRequest({ request }) {
    const url = new URL(request.url);
    const body = await request.clone().text();
    const headers: Record<string, string> = {
      'content-type': request.headers.get('content-type') ?? '',
      host: url.host,
      'x-acs-action': url.pathname.slice(1),
      'x-acs-content-sha256': sha256(body),
      'x-acs-date': new Date().toISOString().replace(/\.\d+/, ''),
      'x-acs-signature-nonce': randomUUID(),
      'x-acs-version': '2019-06-01',
    };
    const names = Object.keys(headers).sort();
    const lines = names.map((name) => `${name}:${headers[name]}\n`).join('');
    const canonical = [request.method, url.pathname, '', lines, names.join(';'), sha256(body)].join('\n');
    const signature = createHmac('sha256', secret).update(`ACS3-HMAC-SHA256\n${sha256(canonical)}`).digest('hex');
    const authorization = `ACS3-HMAC-SHA256 Credential=${id},SignedHeaders=${names.join(';')},Signature=${signature}`;
    const { host, ...sent } = headers;
    for (const [name, value] of Object.entries({ ...sent, authorization })) request.headers.set(name, value);
    return request;
  },
};

const client = createClient<paths>({ baseUrl: `http://${env.WHERRY_TEST_ENDPOINT}` });
client.use(signed);

it('a list has its rows in their types', async () => {
  const { data, error } = await client.POST('/DescribeSourceServers', { body: { PageSize: 50, State: 'Available' } });
  assert.equal(error, undefined);
  const sources: components['schemas']['SourceServer'][] = data?.SourceServers.SourceServer ?? [];
  assert.equal(data?.TotalCount, sources.length);
  assert.ok(sources.every((source) => source.SourceId.startsWith('s-') && source.DataDisks.DataDisk[0].Index === 1));
  const [first] = sources;
  const one = await client.POST('/DescribeSourceServers', { body: { SourceId: [first.SourceId] } });
  assert.deepEqual(one.data?.SourceServers.SourceServer, [first]);
});

it('what is made has the lists and objects of its request', async () => {
  const { data: listed } = await client.POST('/DescribeSourceServers', { body: { State: 'Available' } });
  const [source] = listed?.SourceServers.SourceServer ?? [];
  const made = await client.POST('/CreateReplicationJob', {
    body: {
      RegionId: region,
      SourceId: source.SourceId,
      SystemDiskSize: 20,
      DataDisk: [{ Index: 1, Size: 40 }],
      Tag: [{ Key: 'made-by', Value: 'openapi-fetch' }, { Key: 'plain' }],
    },
  });
  assert.equal(made.error, undefined);
  const JobId = made.data?.JobId ?? '';
  const { data } = await client.POST('/DescribeReplicationJobs', { body: { JobId: [JobId] } });
  const [job] = data?.ReplicationJobs.ReplicationJob ?? [];
  assert.equal(job.DataDisks.DataDisk[0].Size, 40);
  assert.deepEqual(job.Tags.Tag, [{ Key: 'made-by', Value: 'openapi-fetch' }, { Key: 'plain', Value: '' }]);
  assert.equal((await client.POST('/DeleteReplicationJob', { body: { JobId } })).response.status, 200);
});

it('an error has its fields', async () => {
  const { error, response } = await client.POST('/StartReplicationJob', { body: { JobId: 'j-nobody' } });
  assert.equal(response.status, 404);
  const found: components['schemas']['Error'] | undefined = error;
  assert.equal(found?.Code, 'InvalidJobId.NotFound');
  assert.equal(found?.RequestId, response.headers.get('x-acs-request-id'));
});
