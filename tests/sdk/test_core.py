"""aliyun-python-sdk-core and aliyun-python-sdk-smc: signature V1, everything in the query."""

import json
import unittest

from aliyunsdkcore.acs_exception.exceptions import ServerException
from aliyunsdkcore.auth.credentials import StsTokenCredential
from aliyunsdkcore.client import AcsClient
from aliyunsdkcore.request import CommonRequest
from aliyunsdksmc.request.v20190601.CreateReplicationJobRequest import CreateReplicationJobRequest
from aliyunsdksmc.request.v20190601.DescribeReplicationJobsRequest import DescribeReplicationJobsRequest
from aliyunsdksmc.request.v20190601.DescribeSourceServersRequest import DescribeSourceServersRequest

from suite import ENDPOINT, KEY, REGION, Refused, Suite

HOST, PORT = ENDPOINT.rsplit(":", 1)


class Client:
    def __init__(self, access_key_id, access_key_secret, security_token=None):
        if security_token:
            key = {"credential": StsTokenCredential(access_key_id, access_key_secret, security_token)}
        else:
            key = {"ak": access_key_id, "secret": access_key_secret}
        self.client = AcsClient(region_id=REGION, port=int(PORT), auto_retry=False, **key)

    def call(self, action, parameters, method="POST", form=False):
        request = CommonRequest(domain=HOST, version="2019-06-01", action_name=action)
        request.set_method(method)
        for name, value in parameters.items():
            (request.add_body_params if form else request.add_query_param)(name, value)
        return self.send(request)

    def send(self, request):
        request.set_protocol_type("http")
        request.set_endpoint(HOST)
        try:
            return json.loads(self.client.do_action_with_exception(request))
        except ServerException as error:
            raise Refused(error.get_http_status(), error.get_error_code(), error.get_error_msg()) from error


class Core(Suite, unittest.TestCase):
    client_class, tag = Client, "core"
    # Its request classes compare the server's text to sign with their own, and so know that the secret is wrong.
    wrong_secret_code = "InvalidAccessKeySecret"

    def describe(self, client):
        return client.send(DescribeSourceServersRequest())

    def test_query_and_form_get_and_post_are_one(self):
        for method, form in [("GET", False), ("POST", False), ("POST", True)]:
            answer = self.client.call("DescribeSourceServers", {"Name": "naïve 名字 a+b&c=d*e~f", "PageSize": 3}, method, form)
            self.assertEqual(answer["PageSize"], 3)

    def test_the_request_classes(self):
        request = DescribeReplicationJobsRequest()
        request.set_JobIds([self.known["$job"], "j-nobody"])
        self.assertEqual(self.client.send(request)["TotalCount"], 1)
        request = CreateReplicationJobRequest()
        request.set_SourceId(self.known["$free_source"])
        request.set_SystemDiskSize(20)
        request.set_DataDisks([{"Index": 9, "Size": 40}])
        self.refused(lambda: self.client.send(request), 400, "ReplicationJobDataDiskIndex.Invalid")

    def test_xml(self):
        request = CommonRequest(domain=HOST, version="2019-06-01", action_name="DescribeSourceServers")
        request.set_protocol_type("http")
        request.set_accept_format("XML")
        status, headers, body = self.client.client.get_response(request)
        text = body.decode()
        self.assertEqual(status, 200, text)
        self.assertTrue(headers["Content-Type"].startswith("text/xml"), headers)
        self.assertIn("<DescribeSourceServersResponse>", text)
        self.assertIn("<SourceServers><SourceServer>", text)
        self.assertIn(f"<SourceId>{self.known['$source']}</SourceId>", text)

    def test_xml_of_a_refusal(self):
        request = CommonRequest(domain=HOST, version="2019-06-01", action_name="DeleteSourceServer")
        request.set_protocol_type("http")
        request.set_accept_format("XML")
        request.add_query_param("SourceId", "s-nobody")
        status, _, body = self.client.client.get_response(request)
        self.assertEqual(status, 404)
        self.assertIn("<Error>", body.decode())
        self.assertIn("<Code>InvalidSourceId.NotFound</Code>", body.decode())

    def test_the_image_of_a_migration_is_deleted(self):
        # Behind the migration, by its name: tests run in the order of theirs.
        images = self.client.call("DescribeImages", {})["Images"]["Image"]
        image = images[0]
        self.assertEqual(image["State"], "Available", image)
        file = {"ImageId": image["ImageId"], "File": "disk-16.raw"}
        self.refused(lambda: self.client.call("DownloadImage", file), 404, "InvalidFile.NotFound")
        self.client.call("DeleteImage", {"ImageId": image["ImageId"]})
        listed = self.client.call("DescribeImages", {"ImageId.1": image["ImageId"]})
        self.assertIn(listed["TotalCount"], (0, 1))


if __name__ == "__main__":
    unittest.main()
