//! `wherry image export` against a server that may be a false one: the image that the answer describes is written, and
//! only where the user wants it.

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;

use chunks::hashes::{Chunk, hash};
use serde_json::{Value, json};
use testkit::cluster::SmallStore;

const CHUNK: u32 = 1 << 16;
const SIZE: usize = 5 * CHUNK as usize;
const IMAGE: &str = "m-export";

/// Answers and files of the server.
#[derive(Debug, Clone)]
struct Served {
    description: Value,
    files: HashMap<String, Vec<u8>>,
}

impl Served {
    /// An image of one disk, whose content begins with `first`.
    fn image(first: u8) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut bytes: Vec<u8> = (0..SIZE).map(|at| (at / 999) as u8).collect();
        bytes[0] = first;
        bytes[CHUNK as usize..2 * CHUNK as usize].fill(0);
        let mut chunks = bytes.chunks(CHUNK as usize).map(|chunk| {
            if chunk.iter().all(|&byte| byte == 0) {
                Chunk::Zero
            } else {
                Chunk::Data(hash(chunk))
            }
        });
        let mut manifest = Vec::new();
        let head =
            transfer::manifest::write(&mut manifest, SIZE as u64, CHUNK, Vec::new(), |range| {
                Ok(chunks.by_ref().take(range.count as usize).collect())
            })
            .unwrap();
        let (raw, qcow2) = (directory.path().join("raw"), directory.path().join("qcow2"));
        std::fs::write(&raw, &bytes).unwrap();
        qemu_img(&["convert", "-f", "raw", "-O", "qcow2"], &[&raw, &qcow2]);
        Self {
            description: json!({
                "image_id": IMAGE, "name": "web", "job_id": "j-1", "source_id": "s-1", "created": "2026-11-25T00:00:00Z",
                "disks": [{
                    "index": 0, "size_bytes": SIZE, "source_bytes": SIZE, "root_hash": head.root_hex(), "chunk_bytes": CHUNK,
                    "raw": "disk-0.raw", "qcow2": "disk-0.qcow2", "manifest": "disk-0.manifest",
                }],
            }),
            files: HashMap::from([
                ("disk-0.raw".to_owned(), bytes),
                ("disk-0.qcow2".to_owned(), std::fs::read(qcow2).unwrap()),
                ("disk-0.manifest".to_owned(), manifest),
            ]),
        }
    }

    /// Serves for as long as the test runs.
    fn serve(self) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let served = Arc::new(self);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let served = Arc::clone(&served);
                std::thread::spawn(move || served.answer(&stream));
            }
        });
        address
    }

    fn answer(&self, mut stream: &TcpStream) -> std::io::Result<()> {
        let mut reader = BufReader::new(stream);
        let (mut length, mut from) = (0, 0);
        loop {
            let mut line = String::new();
            reader.read_line(&mut line)?;
            let line = line.trim().to_ascii_lowercase();
            if let Some(value) = line.strip_prefix("content-length: ") {
                length = value.parse().unwrap();
            } else if let Some(value) = line.strip_prefix("range: bytes=") {
                from = value.trim_end_matches('-').parse().unwrap();
            } else if line.is_empty() {
                break;
            }
        }
        let mut form = vec![0; length];
        reader.read_exact(&mut form)?;
        let form = String::from_utf8(form).unwrap();
        let body = if form.contains("Action=DescribeImages") {
            let image = json!({"ImageId": IMAGE, "Name": "web", "Description": self.description.to_string()});
            json!({"RequestId": "r", "Images": {"Image": [image]}})
                .to_string()
                .into_bytes()
        } else {
            // A false server has a file for every name.
            let named = self
                .files
                .iter()
                .find(|(name, _)| form.contains(&format!("File={name}")));
            named.map_or(b"evil".as_slice(), |(_, bytes)| bytes)[from..].to_vec()
        };
        write!(
            stream,
            "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
            body.len()
        )?;
        stream.write_all(&body)
    }
}

fn qemu_img(arguments: &[&str], paths: &[&Path]) {
    let status = Command::new("qemu-img")
        .args(arguments)
        .args(paths)
        .status();
    assert!(status.unwrap().success());
}

fn export(server: SocketAddr, to: &Path, more: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_wherry"))
        .args(["image", "export", IMAGE, "--to"])
        .arg(to)
        .args(["--endpoint", &format!("http://{server}"), "--region", "r"])
        .args(["--access-key-id", "id", "--access-key-secret", "secret"])
        .args(more)
        .output()
        .unwrap()
}

/// The error text of a refused export.
#[track_caller]
fn refused(output: &Output) -> String {
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    said
}

fn files_in(directory: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(directory) else {
        return Vec::new();
    };
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    names.sort();
    names
}

const FORMATS: [&str; 2] = ["raw", "qcow2"];

#[test]
fn what_a_false_server_names_never_leads_out_of_the_directory() {
    for field in ["raw", "qcow2", "manifest"] {
        let root = tempfile::tempdir().unwrap();
        let absolute = root.path().join("absolute").display().to_string();
        for name in [
            "../outside",
            "a/b",
            "..",
            "",
            ".profile",
            "image.json",
            absolute.as_str(),
        ] {
            let mut served = Served::image(1);
            served.description["disks"][0][field] = json!(name);
            let server = served.serve();
            for format in FORMATS {
                let to = root.path().join("to");
                let said = refused(&export(server, &to, &["--format", format]));
                assert!(said.contains("can't be trusted"), "{field} {name}: {said}");
            }
            assert_eq!(
                files_in(root.path()),
                Vec::<PathBuf>::new(),
                "{field} {name}"
            );
        }
    }
    let root = tempfile::tempdir().unwrap();
    let mut served = Served::image(1);
    served.description["image_id"] = json!("x/../../outside");
    let said = refused(&export(served.serve(), &root.path().join("to"), &[]));
    assert!(said.contains("can't be trusted"), "{said}");
    assert_eq!(files_in(root.path()), Vec::<PathBuf>::new());
}

#[test]
fn an_image_described_with_such_names_is_not_verified_either() {
    let directory = tempfile::tempdir().unwrap();
    let mut description = Served::image(1).description;
    description["disks"][0]["manifest"] = json!("/etc/passwd");
    std::fs::write(directory.path().join("image.json"), description.to_string()).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_wherry"))
        .args(["image", "verify", "--path"])
        .arg(directory.path())
        .output()
        .unwrap();
    assert!(refused(&output).contains("can't be trusted"));
}

#[test]
fn other_bytes_than_the_answers_root_hash_are_not_kept() {
    let true_image = Served::image(1);
    for format in FORMATS {
        // Disk and manifest fit each other, as they do if an attacker replaced the image.
        let mut served = Served::image(2);
        served.description = true_image.description.clone();
        let to = tempfile::tempdir().unwrap();
        let said = refused(&export(served.serve(), to.path(), &["--format", format]));
        assert!(said.contains("the API says"), "{said}");
        assert_eq!(files_in(to.path()), Vec::<PathBuf>::new(), "{format}");

        // Only the disk was changed.
        let mut served = true_image.clone();
        let name = format!("disk-0.{format}");
        served
            .files
            .insert(name.clone(), Served::image(2).files[&name].clone());
        let said = refused(&export(served.serve(), to.path(), &["--format", format]));
        assert!(said.contains("differs from its manifest"), "{said}");
        assert_eq!(files_in(to.path()), Vec::<PathBuf>::new(), "{format}");
    }
}

#[test]
fn a_server_that_sends_without_end_is_cut_off_at_what_such_a_disk_can_have() {
    let small = 1 << 20;
    for (format, name, more) in [
        ("raw", "disk-0.raw", SIZE + 1),
        ("raw", "disk-0.manifest", small),
        ("qcow2", "disk-0.manifest", small),
        ("qcow2", "disk-0.qcow2", SIZE + SIZE / 64 + (64 << 20) + 1),
    ] {
        let mut served = Served::image(1);
        let file = served.files.get_mut(name).unwrap();
        file.resize(more, 1);
        let to = tempfile::tempdir().unwrap();
        let said = refused(&export(served.serve(), to.path(), &["--format", format]));
        assert!(said.contains("the server sends more"), "{said}");
        let left = to.path().join(format!("{name}.{IMAGE}.partial"));
        assert!(!left.exists(), "{name}");
    }
}

/// A disk of 1 TiB by its description, on a server that has none of its zeros.
#[test]
fn room_is_left_where_a_server_names_more_than_there_is() {
    let mut served = Served::image(1);
    for field in ["size_bytes", "source_bytes"] {
        served.description["disks"][0][field] = json!(1_u64 << 40);
    }
    let bytes = vec![1; 96 << 20];
    served.files.insert("disk-0.raw".to_owned(), bytes);
    let root = tempfile::tempdir().unwrap();
    let _little_room = SmallStore::over(root.path(), 512 << 20).unwrap();
    let to = root.path().join("to");
    let said = refused(&export(served.serve(), &to, &["--format", "raw"]));
    assert!(said.contains("less than 1 GiB is free"), "{said}");
    // The next try goes on from there.
    let partial = to.join(format!("disk-0.raw.{IMAGE}.partial"));
    let kept = partial.metadata().unwrap().len();
    assert!((64 << 20..96 << 20).contains(&kept), "{kept}");
}

#[test]
fn a_qcow2_that_would_have_other_files_opened_is_refused() {
    let root = tempfile::tempdir().unwrap();
    let (base, over, data) = (
        root.path().join("base"),
        root.path().join("over"),
        root.path().join("data"),
    );
    std::fs::write(&base, &Served::image(1).files["disk-0.raw"]).unwrap();
    qemu_img(
        &["create", "-q", "-f", "qcow2", "-F", "raw", "-b"],
        &[&base, &over],
    );
    let external = format!("data_file={}", root.path().join("bytes").display());
    qemu_img(
        &["convert", "-f", "raw", "-O", "qcow2", "-o", &external],
        &[&base, &data],
    );
    for file in [over, data] {
        let mut served = Served::image(1);
        let bytes = std::fs::read(file).unwrap();
        served.files.insert("disk-0.qcow2".to_owned(), bytes);
        let to = tempfile::tempdir().unwrap();
        let said = refused(&export(served.serve(), to.path(), &[]));
        assert!(said.contains("refers to another file"), "{said}");
        assert_eq!(files_in(to.path()), Vec::<PathBuf>::new());
    }
}

#[test]
fn what_is_in_the_directory_is_kept_if_it_is_the_images_and_else_never_replaced() {
    let server = Served::image(1).serve();
    for format in FORMATS {
        let to = tempfile::tempdir().unwrap();
        for _ in 0..2 {
            let output = export(server, to.path(), &["--format", format]);
            assert!(output.status.success(), "{output:?}");
        }
        let file = to.path().join(format!("disk-0.{format}"));
        let whole = Served::image(1).files[&format!("disk-0.{format}")].clone();
        assert_eq!(std::fs::read(&file).unwrap(), whole);
        assert_eq!(
            files_in(to.path()).len(),
            3,
            "disk, manifest and description"
        );

        std::fs::write(&file, "precious").unwrap();
        refused(&export(server, to.path(), &["--format", format]));
        assert_eq!(std::fs::read(&file).unwrap(), b"precious");

        // Another image's directory.
        let mut other = Served::image(1);
        other.description["image_id"] = json!("m-other");
        let said = refused(&export(other.serve(), to.path(), &["--format", format]));
        assert!(said.contains("not of this image"), "{said}");
    }
}

#[test]
fn without_qemu_img_nothing_is_fetched_as_qcow2_and_raw_needs_none() {
    let server = Served::image(1).serve();
    let root = tempfile::tempdir().unwrap();
    let to = root.path().join("to");
    let none = ["--qemu-img", "no-such-qemu-img"];
    let said = refused(&export(server, &to, &none));
    assert!(
        said.contains("qemu-utils") && said.contains("--format raw"),
        "{said}"
    );
    assert!(!to.exists());
    let raw = [&none[..], &["--format", "raw"]].concat();
    assert!(export(server, &to, &raw).status.success());
}
