"""What no client lets its user send: signed requests with one fault each, answered in JSON and in XML. V3 is signed by the official client."""

import base64
import datetime
import hashlib
import hmac
import json
import os
import unittest
import urllib.error
import urllib.parse
import urllib.request
import uuid
import xml.etree.ElementTree as ElementTree
from types import SimpleNamespace

from alibabacloud_tea_openapi.utils import Utils

from suite import ENDPOINT, KEYS, REGION

ACTION, VERSION = "DescribeSourceServers", "2019-06-01"
OWNER, TEMPORARY = KEYS["owner"], KEYS["temporary"]
# One byte and one parameter more than the gateway takes.
LARGE, MANY = 64 * 1024 + 1, 501


def now():
    return datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def send(url, body=b"", headers=None, method="POST"):
    request = urllib.request.Request(url, data=body, headers=headers or {}, method=method)
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def v1(changes, key=OWNER, method="POST", send_method=None):
    parameters = {
        "Action": ACTION, "Version": VERSION, "AccessKeyId": key[0], "SignatureMethod": "HMAC-SHA1", "SignatureVersion": "1.0",
        "SignatureNonce": str(uuid.uuid4()), "Timestamp": now(), **changes}
    parameters = {name: value for name, value in parameters.items() if value is not None}
    escape = lambda text: urllib.parse.quote(text, safe="-_.~")
    text = "&".join(f"{escape(name)}={escape(value)}" for name, value in sorted(parameters.items()))
    digest = hmac.new(f"{key[1]}&".encode(), f"{method}&%2F&{escape(text)}".encode(), hashlib.sha1).digest()
    signature = escape(base64.b64encode(digest).decode())
    return send(f"http://{ENDPOINT}/?{text}&Signature={signature}", method=send_method or method)


def v3(changes, query, key=OWNER, unsigned=()):
    headers = {
        "host": ENDPOINT, "x-acs-action": ACTION, "x-acs-version": VERSION, "x-acs-date": now(),
        "x-acs-signature-nonce": uuid.uuid4().hex, "x-acs-content-sha256": hashlib.sha256(b"").hexdigest(), **changes}
    headers = {name: value for name, value in headers.items() if value is not None}
    signed = {name: value for name, value in headers.items() if name not in unsigned}
    request = SimpleNamespace(method="GET", pathname="/", query=query, headers=signed)
    digest = headers["x-acs-content-sha256"]
    headers["Authorization"] = Utils.get_authorization(request, "ACS3-HMAC-SHA256", digest, key[0], key[1])
    return send(f"http://{ENDPOINT}/?{urllib.parse.urlencode(query)}", None, headers, "GET")


# What is changed of a good call, whose key signs it, and what the answer is.
V1_FAULTS = [
    ({"Action": None}, OWNER, 400, "MissingAction"),
    ({"Version": "2014-05-28"}, OWNER, 400, "InvalidVersion"),
    ({"SignatureMethod": "HMAC-SHA512"}, OWNER, 400, "InvalidSignatureMethod"),
    ({"SignatureVersion": "3.0"}, OWNER, 400, "InvalidSignatureVersion"),
    ({"Timestamp": "now"}, OWNER, 400, "InvalidTimeStamp.Format"),
    ({"Timestamp": "2020-01-01T00:00:00Z"}, OWNER, 400, "InvalidTimeStamp.Expired"),
    ({"SignatureNonce": None}, OWNER, 400, "MissingSignatureNonce"),
    ({"AccessKeyId": "WKnobody"}, OWNER, 404, "InvalidAccessKeyId.NotFound"),
    ({}, KEYS["inactive"], 400, "InvalidAccessKeyId.Inactive"),
    ({}, TEMPORARY, 400, "MissingSecurityToken"),
    ({"SecurityToken": "no token"}, TEMPORARY, 400, "InvalidSecurityToken.Malformed"),
    ({"SecurityToken": KEYS["other"][2]}, TEMPORARY, 400, "InvalidSecurityToken.MismatchWithAccessKey"),
    ({"SecurityToken": TEMPORARY[2]}, OWNER, 400, "InvalidSecurityToken.MismatchWithAccessKey"),
    ({}, [OWNER[0], "not the secret"], 400, "SignatureDoesNotMatch"),
]
V3_FAULTS = [
    ({"x-acs-action": None}, OWNER, 400, "MissingAction"),
    ({"x-acs-version": "2014-05-28"}, OWNER, 400, "InvalidVersion"),
    ({"x-acs-date": "now"}, OWNER, 400, "InvalidTimeStamp.Format"),
    ({"x-acs-date": "2020-01-01T00:00:00Z"}, OWNER, 400, "InvalidTimeStamp.Expired"),
    ({}, KEYS["inactive"], 400, "InvalidAccessKeyId.Inactive"),
    ({}, TEMPORARY, 400, "MissingSecurityToken"),
    ({"x-acs-security-token": "no token"}, TEMPORARY, 400, "InvalidSecurityToken.Malformed"),
    ({"x-acs-security-token": KEYS["other"][2]}, TEMPORARY, 400, "InvalidSecurityToken.MismatchWithAccessKey"),
    ({}, [OWNER[0], "not the secret"], 400, "SignatureDoesNotMatch"),
]

KNOWN = json.loads(os.environ["WHERRY_TEST_KNOWN"])
SOURCE, JOB, TAG = {"SourceId": KNOWN["$silent_source"]}, {"JobId": KNOWN["$silent_job"]}, {"Tag.1.Key": "a", "Tag.1.Value": "<&> naïve 名字"}
TAGGED = {"ResourceType": "sourceserver", "ResourceId.1": KNOWN["$silent_source"]}
NEW_JOB = {"RegionId": REGION, "SourceId": KNOWN["$wide_source"], "SystemDiskSize": "20", "ClientToken": "formats-job"}
NEW_GROUP = {"Name": "formats", "ClientToken": "formats-group"}
# Who calls what, and the code if it is refused: what a call says in both formats, and what repeated calls say.
IN_BOTH_FORMATS = [
    ("filled", "TagResources", {**TAGGED, **TAG}, None),
    ("filled", "ListTagResources", {"ResourceType": "sourceserver"}, None),
    ("filled", "DescribeSourceServers", {"State": "Unavailable"}, None),
    ("filled", "DescribeSourceServers", {"PageNumber": "2", "PageSize": "50"}, None),
    ("filled", "UntagResources", {**TAGGED, "All": "true"}, None),
    ("filled", "DescribeReplicationJobs", {"JobId.1": JOB["JobId"]}, None),
    ("filled", "DescribeReplicationJobs", {"PageNumber": "2", "PageSize": "50"}, None),
    ("filled", "ExplainReplicationJob", JOB, None),
    ("filled", "DescribeImages", {}, None),
    ("small", "DescribeWorkgroups", {}, None),
    ("small", "ListAccessTokens", {}, None),
    ("small", "ModifyWorkgroupAttribute", {"WorkgroupId": KNOWN["$small_group"], "Description": "A <group>"}, None),
    ("filled", "ModifySourceServerAttribute", {**SOURCE, "Description": "A <source>"}, None),
    ("filled", "ModifyReplicationJobAttribute", {**JOB, "Description": "silent"}, None),
    ("filled", "CreateReplicationJob", NEW_JOB, None),
    ("filled", "CreateWorkgroup", NEW_GROUP, None),
    ("small", "CreateReplicationJob", {**NEW_JOB, "SourceId": KNOWN["$small_source"]}, "QuotaExceeded.ReplicationJob"),
    ("small", "AssociateSourceServers", {"WorkgroupId": KNOWN["$small_group"], "SourceId.1": KNOWN["$small_source"]}, "QuotaExceeded.WorkgroupSourceServer"),
    ("small", "DisassociateSourceServers", {"WorkgroupId": KNOWN["$small_group"], "SourceId.1": KNOWN["$small_source"]}, None),
    ("small", "CreateAccessToken", {}, "QuotaExceeded.AccessToken"),
    ("filled", "CreateWorkgroup", {**NEW_GROUP, "Name": "others"}, "IdempotentParameterMismatch"),
    ("filled", "StartReplicationJob", JOB, "SourceServerState.Invalid"),
    ("filled", "CutOverReplicationJob", {**JOB, "SyncData": "true"}, "SourceServerState.Invalid"),
    ("filled", "DeleteSourceServer", SOURCE, "ReplicationJob.Related"),
    ("filled", "DeleteImage", {"ImageId": KNOWN["$growing_image"]}, "Image.InvalidStatus"),
    ("filled", "StopReplicationJob", {"JobId": "j-nobody"}, "InvalidJobId.NotFound"),
    ("filled", "DeleteReplicationJob", {"JobId": "<j>"}, "InvalidJobId.NotFound"),
    ("filled", "DeleteWorkgroup", {}, "MissingWorkgroupId"),
    ("filled", "DisableAccessToken", {"AccessTokenId": "a" * 129}, "InvalidAccessTokenId"),
    ("filled", "DeleteAccessToken", {"AccessTokenId": "at-nobody"}, "InvalidAccessTokenId.NotFound"),
    ("filled", "DownloadImage", {"ImageId": "m-nobody", "File": "image.json"}, "InvalidImageId.NotFound"),
    ("reader", "StartReplicationJob", JOB, "NoPermission"),
    ("filled", "DescribeNothing", {}, "InvalidAction.NotFound"),
]


def leaves(value, path=""):
    """What a JSON answer says, and where; what has nothing in it says nothing there. XML repeats the element of a list."""
    if isinstance(value, list):
        return [leaf for item in value for leaf in leaves(item, path)]
    if isinstance(value, dict):
        below = [leaf for name, item in value.items() if name != "RequestId" for leaf in leaves(item, f"{path}.{name}")]
        return below or [(path, "")]
    return [(path, str(value).lower() if isinstance(value, bool) else value)]


def leaves_of_xml(element, path=""):
    below = [leaf for child in element if child.tag != "RequestId" for leaf in leaves_of_xml(child, f"{path}.{child.tag}")]
    return below or [(path, element.text or "")]


class Wire(unittest.TestCase):
    def answers(self, answer, status, code, form="JSON"):
        found, text = answer
        if form == "XML":
            error = {field.tag: field.text or "" for field in ElementTree.fromstring(text)}
        else:
            error = json.loads(text)
        self.assertEqual((found, error.get("Code")), (status, code), text)
        for field in ("RequestId", "HostId", "Message", "Recommend") if code else ():
            self.assertIsInstance(error[field], str, text)

    def test_v1_and_v3_in_json_and_xml(self):
        for form in ("JSON", "XML"):
            for changes, key, status, code in V1_FAULTS:
                with self.subTest(f"V1 {form} {code} {changes}"):
                    self.answers(v1({"Format": form, **changes}, key), status, code, form)
            for changes, key, status, code in V3_FAULTS:
                with self.subTest(f"V3 {form} {code} {changes}"):
                    self.answers(v3(changes, {"Format": form}, key), status, code, form)
            for call in (lambda: v1({"Format": form}), lambda: v3({}, {"Format": form})):
                self.answers(call(), 200, None, form)

    def test_xml_says_what_json_says(self):
        for name, action, given, code in IN_BOTH_FORMATS:
            with self.subTest(f"{action} {code} {given}"):
                (status, in_json), (status_of_xml, in_xml) = (v1({"Action": action, "Format": form, **given}, KEYS[name]) for form in ("JSON", "XML"))
                self.assertEqual(status, status_of_xml)
                said, root = json.loads(in_json, parse_int=str, parse_float=str), ElementTree.fromstring(in_xml)
                self.assertEqual((said.get("Code"), root.tag), (code, "Error" if code else f"{action}Response"), in_json)
                self.assertEqual(leaves(said), leaves_of_xml(root))
        for action, name, new in [("ReplicationJob", "JobId", NEW_JOB), ("Workgroup", "WorkgroupId", NEW_GROUP)]:
            _, made = v1({"Action": f"Create{action}", **new}, KEYS["filled"])
            self.answers(v1({"Action": f"Delete{action}", name: json.loads(made)[name]}, KEYS["filled"]), 200, None)

    def test_a_nonce_serves_once(self):
        nonce = {"SignatureNonce": str(uuid.uuid4())}
        self.answers(v1(nonce), 200, None)
        self.answers(v1(nonce), 400, "SignatureNonceUsed")
        nonce = {"x-acs-signature-nonce": uuid.uuid4().hex}
        self.answers(v3(nonce, {}), 200, None)
        self.answers(v3(nonce, {}), 400, "SignatureNonceUsed")

    def test_what_decides_is_signed(self):
        self.answers(v3({}, {}, unsigned=["x-acs-action"]), 400, "IncompleteSignature")

    def test_what_is_no_call(self):
        self.answers(v1({}, send_method="PUT"), 400, "UnsupportedHTTPMethod")
        self.answers(send(f"http://{ENDPOINT}/?Name=%FF"), 400, "InvalidParameter")
        form = {"Content-Type": "application/x-www-form-urlencoded"}
        self.answers(send(f"http://{ENDPOINT}/", b"Name=".ljust(LARGE, b"a"), form), 413, "RequestTooLarge")
        many = "&".join(f"P{number}=" for number in range(MANY))
        self.answers(send(f"http://{ENDPOINT}/?{many}"), 413, "RequestTooLarge")


if __name__ == "__main__":
    unittest.main()
