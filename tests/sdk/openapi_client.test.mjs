// @alicloud/openapi-client: signature V3, parameters in a chunked form body; and V1, which it calls v2.

import assert from 'node:assert/strict';
import { it } from 'node:test';
import OpenApi from '@alicloud/openapi-client';
import { endpoint, suite } from './suite.mjs';

const { default: Client, Config, OpenApiRequest, Params } = OpenApi;
// What the client takes as run-time options has a class of its own in a package of its own; it reads no more than these.
const runtime = { readTimeout: 10_000, connectTimeout: 5_000, toMap: () => ({}) };

const client = (signatureAlgorithm) => (accessKeyId, accessKeySecret, securityToken) => {
  const api = new Client(new Config({ accessKeyId, accessKeySecret, securityToken, endpoint, protocol: 'http', signatureAlgorithm }));
  const send = async (action, bodyType, body) => {
    const params = new Params({
      action, version: '2019-06-01', protocol: 'HTTP', pathname: '/', method: 'POST', authType: 'AK', style: 'RPC',
      reqBodyType: 'formData', bodyType,
    });
    return (await api.callApi(params, new OpenApiRequest({ body }), runtime)).body;
  };
  return {
    xml: (action, parameters) => send(action, 'string', { ...parameters, Format: 'XML' }),
    async call(action, parameters) {
      try {
        return await send(action, 'json', parameters);
      } catch (error) {
        throw { status: error.data?.statusCode ?? error.statusCode, code: error.code, message: error.data?.Message ?? error.message };
      }
    },
  };
};

suite('openapi-client-v3', client(), (api, known) => {
  it('XML', async () => {
    const text = await api.xml('DescribeSourceServers', { 'SourceId.1': known.$source });
    assert.ok(text.includes('<DescribeSourceServersResponse>'), text);
    assert.ok(text.includes(`<SourceId>${known.$source}</SourceId>`), text);
  });
});
suite('openapi-client-v1', client('v2'));
