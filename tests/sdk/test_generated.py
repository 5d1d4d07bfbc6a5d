"""A client that openapi-python-client generates of the gateway's own description. What signs is all that its user writes."""

import hashlib
import hmac
import json
import os
import unittest
import uuid
from datetime import datetime, timezone

import httpx
from wherry_client import Client
from wherry_client.api.default import (
    create_replication_job,
    delete_replication_job,
    describe_replication_jobs,
    describe_source_servers,
    start_replication_job,
)
from wherry_client.models import (
    CreateReplicationJob,
    DataDiskSize,
    DeleteReplicationJob,
    DescribeReplicationJobs,
    DescribeSourceServers,
    Error,
    NewTag,
    SourceState,
    StartReplicationJob,
)

ID, SECRET = json.loads(os.environ["WHERRY_TEST_KEYS"])["owner"]


def sha256(body):
    return hashlib.sha256(body).hexdigest()


class Signed(httpx.Auth):
    """Signature V3, ACS3-HMAC-SHA256. The operation is the last part of the path."""

    requires_request_body = True

    def auth_flow(self, request):
        path, body = request.url.path, request.content
        headers = {
            "content-type": request.headers["content-type"],
            "host": request.headers["host"],
            "x-acs-action": path[1:],
            "x-acs-content-sha256": sha256(body),
            "x-acs-date": datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "x-acs-signature-nonce": uuid.uuid4().hex,
            "x-acs-version": "2019-06-01",
        }
        lines = "".join(f"{name}:{value}\n" for name, value in headers.items())
        names = ";".join(headers)
        canonical = "\n".join([request.method, path, "", lines, names, sha256(body)])
        text = f"ACS3-HMAC-SHA256\n{sha256(canonical.encode())}"
        signature = hmac.new(SECRET.encode(), text.encode(), hashlib.sha256).hexdigest()
        request.headers.update(headers)
        request.headers["authorization"] = f"ACS3-HMAC-SHA256 Credential={ID},SignedHeaders={names},Signature={signature}"
        yield request


class Generated(unittest.TestCase):
    def setUp(self):
        endpoint = f"http://{os.environ['WHERRY_TEST_ENDPOINT']}"
        self.client = Client(base_url=endpoint, httpx_args={"auth": Signed(), "trust_env": False})

    def sources(self):
        asked = DescribeSourceServers(state=SourceState.AVAILABLE, page_size=50)
        return describe_source_servers.sync(client=self.client, body=asked)

    def test_a_list_has_its_rows_in_their_types(self):
        answer = self.sources()
        found = answer.source_servers.source_server
        self.assertEqual(answer.total_count, len(found))
        for source in found:
            self.assertTrue(source.source_id.startswith("s-"))
            self.assertEqual(source.data_disks.data_disk[0].index, 1)
        asked = DescribeSourceServers(source_id=[found[0].source_id])
        one = describe_source_servers.sync(client=self.client, body=asked)
        self.assertEqual(one.source_servers.source_server, found[:1])

    def test_what_is_made_has_the_lists_and_objects_of_its_request(self):
        made = create_replication_job.sync(
            client=self.client,
            body=CreateReplicationJob(
                region_id=os.environ["WHERRY_TEST_REGION"],
                source_id=self.sources().source_servers.source_server[0].source_id,
                system_disk_size=20,
                data_disk=[DataDiskSize(index=1, size=40)],
                tag=[NewTag(key="made-by", value="openapi-python-client"), NewTag(key="plain")],
            ),
        )
        asked = DescribeReplicationJobs(job_id=[made.job_id])
        (job,) = describe_replication_jobs.sync(client=self.client, body=asked).replication_jobs.replication_job
        self.assertEqual(job.data_disks.data_disk[0].size, 40)
        tags = [(tag.key, tag.value) for tag in job.tags.tag]
        self.assertEqual(tags, [("made-by", "openapi-python-client"), ("plain", "")])
        done = delete_replication_job.sync_detailed(client=self.client, body=DeleteReplicationJob(job_id=made.job_id))
        self.assertEqual(done.status_code, 200)

    def test_an_error_has_its_fields(self):
        asked = StartReplicationJob(job_id="j-nobody")
        refused = start_replication_job.sync_detailed(client=self.client, body=asked)
        self.assertEqual(refused.status_code, 404)
        self.assertIsInstance(refused.parsed, Error)
        self.assertEqual(refused.parsed.code, "InvalidJobId.NotFound")
        self.assertEqual(refused.parsed.request_id, refused.headers["x-acs-request-id"])
