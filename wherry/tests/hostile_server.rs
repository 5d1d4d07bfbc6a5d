//! A server that means harm: whatever it answers, the terminal of its caller shows text and nothing else.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Output;

use api_gateway::reference;
use domain::printable::{EVIL, is_printable};
use serde_json::{Value, json};

const WHERRY: &str = env!("CARGO_BIN_EXE_wherry");

/// Commands that show what a server answers.
const COMMANDS: &[&str] = &[
    "source list",
    "source show web",
    "source activation-code",
    "job list",
    "job show web",
    "job explain web",
    "job watch web",
    "job create --source web --start",
    "job start web",
    "job stop web",
    "job cut-over web",
    "job delete web",
    "image list",
    "image show web",
    "image verify web",
    "image delete web",
];

/// Answers every call on a free port with this status and body.
fn server(status: u16, answer: &Value) -> std::io::Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?.to_string();
    let body = answer.to_string();
    // Ends with the test's process.
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            // A caller that has gone away is the next one's reason for nothing.
            let _answered = answer_one(stream, status, &body);
        }
    });
    Ok(address)
}

fn answer_one(mut stream: TcpStream, status: u16, body: &str) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut length = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap_or(0);
        }
        if line.trim().is_empty() {
            break;
        }
    }
    reader.take(length).read_to_end(&mut Vec::new())?;
    write!(
        stream,
        "HTTP/1.1 {status} Any\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    )
}

/// An answer with every field of every operation, each text of it `evil`.
fn everything(evil: &str) -> Value {
    let mut answer = json!({});
    for (path, kind) in reference::fields() {
        let value = match kind {
            "integer" | "number" => json!(1),
            "boolean" => json!(false),
            _ => json!(evil),
        };
        put(&mut answer, path, value);
    }
    let inside =
        json!({ "doing": evil, "transport": evil, "transport_reason": evil, "error_msg": evil });
    for (path, value) in [
        // Else a watch would not end.
        ("ReplicationJobs.ReplicationJob[].Status", json!("InError")),
        (
            "ReplicationJobs.ReplicationJob[].StatusInfo",
            json!(inside.to_string()),
        ),
        (
            "SourceServers.SourceServer[].StatusInfo",
            json!(inside.to_string()),
        ),
    ] {
        put(&mut answer, path, value);
    }
    answer
}

/// Sets the field at a path such as `Images.Image[].Name`.
fn put(at: &mut Value, path: &str, value: Value) {
    let (first, rest) = path
        .split_once('.')
        .map_or((path, None), |(first, rest)| (first, Some(rest)));
    let place = match first.strip_suffix("[]") {
        Some(list) => {
            let list = &mut at[list];
            if !list.is_array() {
                *list = json!([null]);
            }
            &mut list[0]
        }
        None => &mut at[first],
    };
    match rest {
        Some(rest) => {
            if !place.is_object() {
                *place = json!({});
            }
            put(place, rest, value);
        }
        None => *place = value,
    }
}

fn run(address: &str, command: &str) -> anyhow::Result<Output> {
    let connection = [
        "--endpoint",
        address,
        "--access-key-id",
        "id",
        "--access-key-secret",
        "secret",
        "--region",
        "local",
    ];
    let output = testkit::program::command(Path::new(WHERRY))
        .args(command.split(' '))
        .args(connection)
        .output()?;
    Ok(output)
}

fn check(command: &str, evil: &str, output: &Output) {
    for stream in [&output.stdout, &output.stderr] {
        let text = String::from_utf8_lossy(stream);
        for line in text.lines() {
            assert!(is_printable(line), "{command} shows {line:?} of {evil:?}");
            assert!(
                !line.starts_with("forged"),
                "{command} shows a forged line: {text}"
            );
        }
    }
}

#[test]
fn no_answer_of_a_server_reaches_the_terminal_as_more_than_text() -> anyhow::Result<()> {
    for evil in EVIL {
        let address = server(200, &everything(evil))?;
        // Each command shows the same kinds of places; one text that has everything goes through all of them.
        let commands = if *evil == EVIL[3] {
            COMMANDS
        } else {
            &COMMANDS[..6]
        };
        for command in commands {
            let output = run(&address, command)?;
            check(command, evil, &output);
            assert!(
                !output.stdout.is_empty() || !output.stderr.is_empty(),
                "{command} says nothing"
            );
        }
        let refusal = json!({ "Code": evil, "Message": evil, "RequestId": evil, "HostId": evil, "Recommend": evil });
        let address = server(400, &refusal)?;
        let output = run(&address, "job list")?;
        check("job list", evil, &output);
        assert!(String::from_utf8_lossy(&output.stderr).contains("error: "));
    }
    Ok(())
}
