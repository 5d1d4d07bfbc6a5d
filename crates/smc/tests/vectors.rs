//! The signature vectors of the SMC API document, appendix A: two official ones and four that real clients sent.

use smc::{pairs, v1, v3};

const CAPTURE_SECRET: &str = "testsk";

fn parsed(text: &str) -> smc::Pairs {
    pairs::parse(text.as_bytes()).expect("the vectors are UTF-8")
}

fn v1_vector(
    method: &str,
    query: &str,
    body: &str,
    secret: &str,
    wanted_text: &str,
    signature: &str,
) {
    let all: smc::Pairs = parsed(query).into_iter().chain(parsed(body)).collect();
    let text = v1::string_to_sign(method, &all);
    assert_eq!(text, wanted_text);
    assert_eq!(v1::sign(secret, &text), signature);
    assert!(v1::verify(secret, &text, signature));
    assert!(!v1::verify("another", &text, signature));
    assert!(!v1::verify(secret, &text, ""));
    assert!(!v1::verify(secret, &text, &signature[1..]));
}

struct V3Vector<'a> {
    query: &'a str,
    headers: &'a str,
    body: &'a str,
    authorization: &'a str,
    secret: &'a str,
    request_sha256: &'a str,
}

fn v3_vector(vector: &V3Vector<'_>) {
    let headers: Vec<(String, String)> = vector
        .headers
        .lines()
        .map(|line| {
            let (name, value) = line.trim().split_once(": ").expect("name: value");
            (name.to_owned(), value.to_owned())
        })
        .collect();
    let authorization =
        v3::Authorization::parse(vector.authorization).expect("a well formed header");
    let canonical = v3::canonical_request(&v3::Request {
        method: "POST",
        path: "/",
        query: &parsed(vector.query),
        headers: &headers,
        signed_headers: &authorization.signed_headers,
        body_sha256: &v3::sha256(vector.body.as_bytes()),
    });
    assert_eq!(
        v3::sha256(canonical.as_bytes()),
        vector.request_sha256,
        "{canonical}"
    );
    let text = v3::string_to_sign(&canonical);
    assert_eq!(v3::sign(vector.secret, &text), authorization.signature);
    assert!(v3::verify(vector.secret, &text, &authorization.signature));
    assert!(!v3::verify("another", &text, &authorization.signature));
    assert!(!v3::verify(vector.secret, &text, "00"));
}

#[test]
fn a1_official_v1() {
    v1_vector(
        "GET",
        "AccessKeyId=testid&Action=DescribeRegions&Format=XML&SignatureMethod=HMAC-SHA1\
         &SignatureNonce=3ee8c1b8-83d3-44af-a94f-4e0ad82fd6cf&SignatureVersion=1.0\
         &Timestamp=2016-02-23T12%3A46%3A24Z&Version=2014-05-26",
        "",
        "testsecret",
        "GET&%2F&AccessKeyId%3Dtestid%26Action%3DDescribeRegions%26Format%3DXML%26SignatureMethod%3DHMAC-SHA1\
         %26SignatureNonce%3D3ee8c1b8-83d3-44af-a94f-4e0ad82fd6cf%26SignatureVersion%3D1.0\
         %26Timestamp%3D2016-02-23T12%253A46%253A24Z%26Version%3D2014-05-26",
        "OLeaidS1JvxuMvnyHOwuJ+uX5qY=",
    );
}

#[test]
fn a2_official_v3() {
    v3_vector(&V3Vector {
        query: "ImageId=win2019_1809_x64_dtc_zh-cn_40G_alibase_20230811.vhd&RegionId=cn-shanghai",
        headers: "host: ecs.cn-shanghai.aliyuncs.com
            x-acs-action: RunInstances
            x-acs-content-sha256: e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855
            x-acs-date: 2023-10-26T10:22:32Z
            x-acs-signature-nonce: 3156853299f313e23d1673dc12e1703d
            x-acs-version: 2014-05-26",
        body: "",
        authorization: "ACS3-HMAC-SHA256 Credential=YourAccessKeyId,\
            SignedHeaders=host;x-acs-action;x-acs-content-sha256;x-acs-date;x-acs-signature-nonce;x-acs-version,\
            Signature=06563a9e1b43f5dfe96b81484da74bceab24a1d853912eee15083a6f0f3283c0",
        secret: "YourAccessKeySecret",
        request_sha256: "7ea06492da5221eba5297e897ce16e55f964061054b7695beedaac1145b1e259",
    });
}

#[test]
fn a3_python_core_with_a_form_body_and_plus_for_space() {
    v1_vector(
        "POST",
        "Version=2019-06-01&Action=DescribeSourceServers&Format=JSON&RegionId=cn-hangzhou\
         &Timestamp=2026-11-23T06%3A48%3A13Z&SignatureMethod=HMAC-SHA1&SignatureType=&SignatureVersion=1.0\
         &SignatureNonce=1f4359f411879354e8b3b3e6110495e2&AccessKeyId=testak\
         &Signature=mLmdgyGUnflyc6ohPJHBzgfjWk0%3D",
        "Name=na%C3%AFve+%E5%90%8D%E5%AD%97+a%2Bb%26c%3Dd%2Ae~f%21g%28h%29%27i%22%2F%2525&PageSize=3",
        CAPTURE_SECRET,
        "POST&%2F&AccessKeyId%3Dtestak%26Action%3DDescribeSourceServers%26Format%3DJSON\
         %26Name%3Dna%25C3%25AFve%2520%25E5%2590%258D%25E5%25AD%2597%2520a%252Bb%2526c%253Dd%252Ae~f%2521g%2528h%2529\
         %2527i%2522%252F%252525%26PageSize%3D3%26RegionId%3Dcn-hangzhou%26SignatureMethod%3DHMAC-SHA1\
         %26SignatureNonce%3D1f4359f411879354e8b3b3e6110495e2%26SignatureType%3D%26SignatureVersion%3D1.0\
         %26Timestamp%3D2026-11-23T06%253A48%253A13Z%26Version%3D2019-06-01",
        "mLmdgyGUnflyc6ohPJHBzgfjWk0=",
    );
}

#[test]
fn a4_javascript_pop_core_with_everything_in_the_form() {
    v1_vector(
        "POST",
        "",
        "AccessKeyId=testak&Action=DescribeSourceServers&DataDisk.1.Index=1&DataDisk.1.Part.1.Device=1_0\
         &DataDisk.1.Size=40&Empty=&Force=true&Format=JSON\
         &Name=na%C3%AFve%20%E5%90%8D%E5%AD%97%20a%2Bb%26c%3Dd%2Ae~f%21g%28h%29%27i%22%2F%2525&RegionId=cn-hangzhou\
         &SignatureMethod=HMAC-SHA1&SignatureNonce=e669ebd59b7c1fa9cd627392594d4c60&SignatureVersion=1.0\
         &SourceId.1=s-1&SourceId.2=s-2&Timestamp=2026-11-23T06%3A48%3A14Z&Version=2019-06-01\
         &Signature=djT%2Fra%2BMkxsue%2F008TcV5e%2BpwCc%3D",
        CAPTURE_SECRET,
        "POST&%2F&AccessKeyId%3Dtestak%26Action%3DDescribeSourceServers%26DataDisk.1.Index%3D1\
         %26DataDisk.1.Part.1.Device%3D1_0%26DataDisk.1.Size%3D40%26Empty%3D%26Force%3Dtrue%26Format%3DJSON\
         %26Name%3Dna%25C3%25AFve%2520%25E5%2590%258D%25E5%25AD%2597%2520a%252Bb%2526c%253Dd%252Ae~f%2521g%2528h%2529\
         %2527i%2522%252F%252525%26RegionId%3Dcn-hangzhou%26SignatureMethod%3DHMAC-SHA1\
         %26SignatureNonce%3De669ebd59b7c1fa9cd627392594d4c60%26SignatureVersion%3D1.0%26SourceId.1%3Ds-1\
         %26SourceId.2%3Ds-2%26Timestamp%3D2026-11-23T06%253A48%253A14Z%26Version%3D2019-06-01",
        "djT/ra+Mkxsue/008TcV5e+pwCc=",
    );
}

#[test]
fn a5_python_tea_v3_with_all_headers_signed() {
    v3_vector(&V3Vector {
        query: "Name=na%C3%AFve+%E5%90%8D%E5%AD%97+a%2Bb%26c%3Dd%2Ae~f%21g%28h%29%27i%22%2F%2525&PageSize=5\
            &SourceId.1=s-1&SourceId.2=s-2",
        headers: "host: 127.0.0.1:18080
            x-acs-version: 2019-06-01
            x-acs-action: DescribeSourceServers
            user-agent: AlibabaCloud (Linux; x86_64) Python/3.11.7 Core/0.4.3 TeaDSL/2
            x-acs-date: 2026-11-23T06:48:14Z
            x-acs-signature-nonce: 4db90bcc19b34ed919c6349633f55d23
            accept: application/json
            x-acs-content-sha256: e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855
            x-acs-credentials-provider: static_ak",
        body: "",
        authorization: "ACS3-HMAC-SHA256 Credential=testak,SignedHeaders=accept;host;user-agent;x-acs-action;\
            x-acs-content-sha256;x-acs-credentials-provider;x-acs-date;x-acs-signature-nonce;x-acs-version,\
            Signature=10e90414c7ed87c21fbc24f7781e1188b2cffb08d5cae89d36ec2a99dd23cf6d",
        secret: CAPTURE_SECRET,
        request_sha256: "3995e7097cb1e697acfad7d1025c3b2ba4e4532f70cecd9339b9eb4733503398",
    });
}

#[test]
fn a6_node_tea_v3_with_a_chunked_form() {
    let body = "Name=na%C3%AFve%20%E5%90%8D%E5%AD%97%20a%2Bb%26c%3Dd*e~f!g(h)'i%22%2F%2525&SourceId.1=s-1&SourceId.2=s-2\
        &DataDisk.1.Index=1&DataDisk.1.Size=40&Force=true&Empty=";
    v3_vector(&V3Vector {
        query: "",
        headers: "host: 127.0.0.1:18080
            x-acs-version: 2019-06-01
            x-acs-action: DescribeSourceServers
            user-agent: AlibabaCloud (linux; x64) Node.js/v20.20.2 Core/1.0.1 TeaDSL/2
            x-acs-date: 2026-11-23T06:48:15Z
            x-acs-signature-nonce: 7a4c6c99f69a06ffe5824f4ff2a32122bfefd86550efdc2977f5fc7f016c0a14
            accept: application/json
            content-type: application/x-www-form-urlencoded
            x-acs-content-sha256: 668f6ea80f9529732c69dfc28361103486c0a35b68f058418838ec6ee7bc5087
            x-acs-credentials-provider: static_ak",
        body,
        authorization: "ACS3-HMAC-SHA256 Credential=testak,SignedHeaders=content-type;host;x-acs-action;\
            x-acs-content-sha256;x-acs-credentials-provider;x-acs-date;x-acs-signature-nonce;x-acs-version,\
            Signature=6928bc573ab46b57db9edd603c0e4f7348e238925da7c8220a6881f5f5af1bf3",
        secret: CAPTURE_SECRET,
        request_sha256: "73a9f0853913823e4da8caf332930c59deb956c47ba10a04f0f48ce9cfe8f264",
    });
    assert_eq!(
        v3::sha256(body.as_bytes()),
        "668f6ea80f9529732c69dfc28361103486c0a35b68f058418838ec6ee7bc5087"
    );
}
