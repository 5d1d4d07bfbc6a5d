// @alicloud/pop-core: signature V1, GET in the query and POST in the form.

import Core from '@alicloud/pop-core';
import { endpoint, region, suite } from './suite.mjs';

const client = (method) => (accessKeyId, accessKeySecret, securityToken) => {
  const core = new Core({ accessKeyId, accessKeySecret, securityToken, endpoint: `http://${endpoint}`, apiVersion: '2019-06-01' });
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

suite('pop-core-get', client('GET'));
suite('pop-core-post', client('POST'));
