"""What every Python client must do: the cases of cases.json, the errors of the gateway, and a whole migration.

A client is a module with `Client(access_key_id, access_key_secret, security_token=None)`, whose `call(action, parameters)` returns the
answer as a dict or raises `Refused`. The deployment is told by the environment: see wherry/tests/sdk.rs.

A case is a call `with` parameters (`many`: of numbered ones, `%` is the number), `as` another caller than the owner, and what it `answers`
or how it is `refused`: HTTP status, code, and what the message says. Texts with `$` are known from before, or what a case before did `keep`.
A parameter that is null is left out.

A case with `edges` stands for many, each with one parameter changed: [parameter, values past an edge of its rule, the code that they are
refused with, values exactly at it]. At an edge the call is done, or `then` refused for something that is looked at later.
"""

import datetime
import json
import os
import re
import time
import unittest
from pathlib import Path

ENDPOINT = os.environ["WHERRY_TEST_ENDPOINT"]
REGION = os.environ["WHERRY_TEST_REGION"]
# Access keys by what they are for: id, secret, and security token if it is a temporary one.
KEYS = json.loads(os.environ["WHERRY_TEST_KEYS"])
KEY = KEYS["owner"]
PATIENCE_SECS = 90


class Refused(Exception):
    """An error answer: HTTP status (None where the client does not tell), code, message."""

    def __init__(self, status, code, message):
        super().__init__(f"{status} {code}: {message}")
        self.status, self.code, self.message = status, code, message


TYPES = {
    "<string>": lambda value: isinstance(value, str) and value != "",
    "<integer>": lambda value: isinstance(value, int) and not isinstance(value, bool),
    "<number>": lambda value: isinstance(value, (int, float)) and not isinstance(value, bool),
    "<list>": lambda value: isinstance(value, list),
    "<time>": lambda value: re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", value) is not None,
    "<json>": lambda value: isinstance(json.loads(value), dict),
}


def at(answer, path):
    """The value at a path such as `SourceServers.SourceServer.0.Name`."""
    for part in path.split("."):
        answer = answer[int(part)] if part.isdigit() else answer[part]
    return answer


def in_days(days):
    time_then = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(days=days)
    return time_then.strftime("%Y-%m-%dT%H:%M:%SZ")


# Texts by their length.
LENGTHS = (64, 65, 128, 129, 255, 256, 257, 4097)
TEXTS = {
    **{f"$text{length}": "a" * length for length in LENGTHS},
    # The smallest object, with room between its braces.
    **{f"$json{length}": "{" + " " * (length - 2) + "}" for length in (2048, 2049)},
    # What names the end of a page of tags: ["a","b"] behind spaces, in Base64.
    "$token4096": "ICAg" * 1021 + "WyJhIiwiYiJd",
}


def plain(case):
    """The cases that a case with `edges` stands for."""
    if "edges" not in case:
        return [case]
    cases = []
    for parameter, past, code, at_edge in case["edges"]:
        refused = [(value, [400, code]) for value in past] + [(value, case.get("then")) for value in at_edge]
        for value, refusal in refused:
            name = f"{case['name']}: {parameter} {value}"
            cases.append({**case, "name": name, "with": {**case["with"], parameter: value}, "refused": refusal})
    return cases


class Suite:
    """Mixed into a `unittest.TestCase` that has `client_class` and `tag`, which names what the client makes."""

    @classmethod
    def setUpClass(cls):
        cls.clients = {name: cls.client_class(*key) for name, key in KEYS.items()}
        cls.client = cls.clients["owner"]
        sources = cls.client.call("DescribeSourceServers", {})["SourceServers"]["SourceServer"]
        free = sorted(source["SourceId"] for source in sources if source["State"] == "Available")
        assert len(free) == 2, f"the test gives two sources: {sources}"
        job_name = f"cases-{cls.tag}"
        job = cls.client.call("CreateReplicationJob", {"RegionId": REGION, "SourceId": free[0], "SystemDiskSize": 40, "Name": job_name})
        cls.known = {
            "$region": REGION, "$source": free[0], "$free_source": free[1], "$job": job["JobId"], "$job_name": job_name,
            **json.loads(os.environ["WHERRY_TEST_KNOWN"]), **TEXTS, **{f"$in_{days}_days": in_days(days) for days in (6, 8, 29, 31, 89, 91)},
        }

    @classmethod
    def tearDownClass(cls):
        cls.client.call("DeleteReplicationJob", {"JobId": cls.known["$job"]})

    def describe(self, client):
        return client.call("DescribeSourceServers", {})

    def refused(self, call, status, code, message=""):
        with self.assertRaises(Refused) as caught:
            call()
        self.assertEqual(caught.exception.code, code, caught.exception)
        self.assertIn(caught.exception.status, (status, None), caught.exception)
        self.assertTrue(caught.exception.message)
        self.assertIn(message, caught.exception.message)
        return caught.exception

    def test_cases(self):
        for case in [case for row in json.loads(Path(__file__).with_name("cases.json").read_text()) for case in plain(row)]:
            with self.subTest(case["name"]):
                given = {name: self.known.get(value, value) for name, value in case["with"].items() if value is not None}
                for name, count, value in case.get("many", []):
                    given.update({name.replace("%", str(n)): value.replace("%", str(n)) for n in range(1, count + 1)})
                client = self.clients[case.get("as", "owner")]
                if case.get("refused"):
                    self.refused(lambda: client.call(case["call"], given), *case["refused"])
                    continue
                answer = client.call(case["call"], given)
                self.known.update({name: at(answer, path) for name, path in case.get("keep", {}).items()})
                for path, wanted in case.get("answers", {}).items():
                    found = at(answer, path)
                    if wanted in TYPES if isinstance(wanted, str) else False:
                        self.assertTrue(TYPES[wanted](found), f"{path} is {found!r}, not {wanted}")
                    else:
                        wanted = self.known.get(wanted, wanted) if isinstance(wanted, str) else wanted
                        self.assertEqual(found, wanted, path)
                        self.assertIs(type(found), type(wanted), path)

    def test_a_wrong_secret_is_told_apart_from_an_unknown_key(self):
        wrong = self.client_class(KEY[0], "not the secret")
        self.refused(lambda: self.describe(wrong), 400, self.wrong_secret_code)
        unknown = self.client_class("WKnobody", KEY[1])
        self.refused(lambda: unknown.call("DescribeSourceServers", {}), 404, "InvalidAccessKeyId.NotFound")

    def test_an_account_that_calls_too_often_is_throttled(self):
        def flood(client):
            for _ in range(50):
                client.call("DescribeSourceServers", {})

        self.refused(lambda: flood(self.clients["busy"]), 400, "Throttling.User")
        self.refused(lambda: flood(self.clients["insistent"]), 400, "Throttling.Api")

    def test_a_migration(self):
        call, source = self.client.call, self.known["$free_source"]
        token = f"token-{self.tag}"
        asked = {"RegionId": REGION, "SourceId": source, "SystemDiskSize": 20, "Name": f"migration-{self.tag}", "ClientToken": token,
                 "ReplicationParameters": json.dumps({"bandwidth_limit": 0, "compress_level": 1, "checksum": True})}
        job = call("CreateReplicationJob", asked)["JobId"]
        self.assertEqual(call("CreateReplicationJob", asked)["JobId"], job, "the same token is the same job")
        self.refused(lambda: call("CreateReplicationJob", {**asked, "SystemDiskSize": 30}), 400, "IdempotentParameterMismatch")
        call("StartReplicationJob", {"JobId": job})
        seen, deadline = None, time.monotonic() + PATIENCE_SECS
        while time.monotonic() < deadline:
            seen = call("DescribeReplicationJobs", {"JobId.1": job})["ReplicationJobs"]["ReplicationJob"][0]
            if seen["Status"] not in ("Ready", "Running"):
                break
            time.sleep(0.2)
        self.assertEqual(seen["Status"], "Finished", seen)
        self.assertTrue(seen["ImageId"].startswith("m-"), seen)
        self.assertEqual(seen["Progress"], 100, seen)
        for field in ("StartTime", "EndTime"):
            self.assertTrue(TYPES["<time>"](seen[field]), seen)
        call("DeleteReplicationJob", {"JobId": job})
        while time.monotonic() < deadline:
            if call("DescribeReplicationJobs", {"JobId.1": job})["TotalCount"] == 0:
                return
            time.sleep(0.2)
        self.fail("the deleted job is still there")
