// @alicloud/pop-core: signature V1, GET in the query over HTTPS, and POST in the form over HTTP.

import Core from '@alicloud/pop-core';
import { endpoint, region, suite } from './suite.mjs';

const client = (method, address) => (accessKeyId, accessKeySecret, securityToken) => {
  const core = new Core({ accessKeyId, accessKeySecret, securityToken, endpoint: address, apiVersion: '2019-06-01' });
  return {
    async call(action, parameters) {
      try {
        return await core.request(action, { RegionId: region, ...parameters }, { method, timeout: 10_000 });
      } catch (error) {
        throw { code: error.code, message: error.data?.Message ?? error.message };
      }
    },
  };
};

suite('pop-core-get', client('GET', `https://${process.env.WHERRY_TEST_TLS_ENDPOINT}`));
suite('pop-core-post', client('POST', `http://${endpoint}`));
