"""alibabacloud-smc20190601: its models with signature V3, and calls by name with V1 (`signature_algorithm="v2"` to this client)."""

import json
import unittest

from alibabacloud_smc20190601 import models
from alibabacloud_smc20190601.client import Client as Smc
from alibabacloud_tea_openapi import models as open_api
from alibabacloud_tea_openapi.client import Client as OpenApi
from darabonba.exceptions import DaraException
from darabonba.runtime import RuntimeOptions

from suite import ENDPOINT, KEY, REGION, Refused, Suite


def config(access_key_id, access_key_secret, security_token, algorithm):
    return open_api.Config(
        access_key_id=access_key_id, access_key_secret=access_key_secret, security_token=security_token, endpoint=ENDPOINT, protocol="http",
        region_id=REGION, signature_algorithm=algorithm)


def text(value):
    return str(value).lower() if isinstance(value, bool) else str(value)


def refused(error):
    data = error.data or {}
    return Refused(data.get("statusCode"), error.code, data.get("Message") or error.message)


class Client:
    algorithm = None

    def __init__(self, access_key_id, access_key_secret, security_token=None):
        self.config = config(access_key_id, access_key_secret, security_token, self.algorithm)
        self.client = OpenApi(self.config)

    def call(self, action, parameters):
        params = open_api.Params(
            action=action, version="2019-06-01", protocol="HTTP", pathname="/", method="POST", auth_type="AK", style="RPC",
            req_body_type="formData", body_type="json")
        request = open_api.OpenApiRequest(query={name: text(value) for name, value in parameters.items()})
        try:
            return self.client.call_api(params, request, RuntimeOptions())["body"]
        except DaraException as error:
            raise refused(error) from error


    def text(self, action, parameters):
        """What an answer that is not JSON says."""
        params = open_api.Params(
            action=action, version="2019-06-01", protocol="HTTP", pathname="/", method="POST", auth_type="AK", style="RPC",
            req_body_type="formData", body_type="string")
        return self.client.call_api(params, open_api.OpenApiRequest(query=parameters), RuntimeOptions())["body"]


class ClientV1(Client):
    algorithm = "v2"


class Tea(Suite, unittest.TestCase):
    client_class, tag = Client, "tea"
    wrong_secret_code = "SignatureDoesNotMatch"

    def test_the_models(self):
        smc = Smc(self.client.config)
        sources = smc.describe_source_servers(models.DescribeSourceServersRequest(source_id=[self.known["$source"]])).body
        self.assertEqual(sources.total_count, 1)
        source = sources.source_servers.source_server[0]
        self.assertEqual((source.source_id, source.job_id), (self.known["$source"], self.known["$job"]))
        self.assertIsInstance(source.system_disk_size, int)
        # Two lists, one in the other, each wrapped.
        self.assertEqual([disk.index for disk in source.data_disks.data_disk], [1])
        self.assertEqual(source.tags.tag, [])
        jobs = smc.describe_replication_jobs(models.DescribeReplicationJobsRequest(job_id=[self.known["$job"]], region_id=REGION)).body
        job = jobs.replication_jobs.replication_job[0]
        self.assertEqual((job.status, job.run_once, job.system_disk_size), ("Ready", True, 40))
        asked = models.CreateReplicationJobRequest(
            region_id=REGION, source_id=self.known["$free_source"], system_disk_size=20,
            data_disk=[models.CreateReplicationJobRequestDataDisk(index=9, size=40)])
        with self.assertRaises(DaraException) as caught:
            smc.create_replication_job(asked)
        self.assertEqual(caught.exception.code, "ReplicationJobDataDiskIndex.Invalid")
        token = smc.create_access_token(models.CreateAccessTokenRequest(name="from-tea", count="3", time_to_live_in_days="2")).body
        self.assertTrue(token.access_token_code)
        listed = smc.list_access_tokens(models.ListAccessTokensRequest(access_token_id=[token.access_token_id])).body
        self.assertEqual(listed.access_tokens.access_token[0].status, "activated")
        smc.disable_access_token(models.DisableAccessTokenRequest(access_token_id=token.access_token_id))
        smc.delete_access_token(models.DeleteAccessTokenRequest(access_token_id=token.access_token_id))


    def test_an_image_is_downloaded(self):
        # Behind the migration, by its name: tests run in the order of theirs.
        image = self.client.call("DescribeImages", {"PageSize": 1})["Images"]["Image"][0]
        text = self.client.text("DownloadImage", {"ImageId": image["ImageId"], "File": "image.json"})
        self.assertEqual(json.loads(text), json.loads(image["Description"]))

    def test_xml(self):
        text = self.client.text("DescribeSourceServers", {"SourceId.1": self.known["$source"], "Format": "XML"})
        self.assertIn("<DescribeSourceServersResponse>", text)
        self.assertIn("<SourceServers><SourceServer>", text)
        self.assertIn(f"<SourceId>{self.known['$source']}</SourceId>", text)


class TeaV1(Suite, unittest.TestCase):
    client_class, tag = ClientV1, "tea-v1"
    wrong_secret_code = "SignatureDoesNotMatch"


if __name__ == "__main__":
    unittest.main()
