// @alicloud/openapi-client: signature V3, parameters in a chunked form body; and V1, which it calls v2.

import OpenApi from '@alicloud/openapi-client';
import { endpoint, suite } from './suite.mjs';

const { default: Client, Config, OpenApiRequest, Params } = OpenApi;
// What the client takes as run-time options has a class of its own in a package of its own; it reads no more than these.
const runtime = { readTimeout: 10_000, connectTimeout: 5_000, toMap: () => ({}) };

const client = (signatureAlgorithm) => (accessKeyId, accessKeySecret, securityToken) => {
  const api = new Client(new Config({ accessKeyId, accessKeySecret, securityToken, endpoint, protocol: 'http', signatureAlgorithm }));
  return {
    async call(action, parameters) {
      const params = new Params({
        action, version: '2019-06-01', protocol: 'HTTP', pathname: '/', method: 'POST', authType: 'AK', style: 'RPC',
        reqBodyType: 'formData', bodyType: 'json',
      });
      try {
        return (await api.callApi(params, new OpenApiRequest({ body: parameters }), runtime)).body;
      } catch (error) {
        throw { status: error.data?.statusCode ?? error.statusCode, code: error.code, message: error.data?.Message ?? error.message };
      }
    },
  };
};

suite('openapi-client-v3', client());
suite('openapi-client-v1', client('v2'));
