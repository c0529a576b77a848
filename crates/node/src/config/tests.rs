#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

use std::fs;

use super::*;

/// RFC 8032, 7.1, test 1.
const ROOT_KEY: &str = "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=";

fn minimal() -> String {
    format!(
        r#"network = "example"
bureau = "FR"
node = "fr-1"
data_dir = "data"
[keys]
signing_key = "keys/signing.pem"
[tls]
ca = "tls/ca.pem"
certificate = "tls/node.pem"
key = "/etc/tls/node.key"
[roster]
file = "roster.bin"
root_keys = ["{ROOT_KEY}"]
threshold = 1
[desk]
listen = "127.0.0.1:7101"
[link]
listen = "[::]:7102"
[admin]
listen = "127.0.0.1:7103"
[policy]
sealing_suites = ["OPEN"]
"#
    )
}

fn load(text: impl AsRef<[u8]>) -> Result<Config, ConfigError> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("bureau.toml");
    fs::write(&path, text).unwrap();
    Config::load(&path)
}

/// The faults of a file, each as its line, option and problem.
fn faults(text: impl AsRef<[u8]>) -> Vec<String> {
    let error = load(text).unwrap_err();
    assert!(!error.faults.is_empty());
    assert!(error.faults.iter().all(|fault| !fault.cure.is_empty()), "{error}");
    let short = |fault: &Fault| {
        let line = fault.line.unwrap_or(0);
        format!("{line} {}: {}", fault.field, fault.problem)
    };
    error.faults.iter().map(short).collect()
}

/// The one fault of the good file with one text replaced.
fn fault_of(from: &str, to: &str) -> String {
    let text = minimal();
    assert!(text.contains(from), "{from}");
    let faults = faults(text.replacen(from, to, 1));
    assert_eq!(faults.len(), 1, "{faults:#?}");
    faults.concat()
}

fn with(more: &str) -> String {
    format!("{}{more}", minimal())
}

#[test]
fn a_minimal_file_has_the_defaults() {
    let config = load(minimal()).unwrap();
    let directory = config.path.parent().unwrap().to_path_buf();
    assert_eq!(config.bureau.as_str(), "FR");
    assert_eq!(config.data_dir, directory.join("data"));
    assert_eq!(config.keys.signing_key, directory.join("keys/signing.pem"));
    assert_eq!(config.tls.key, Path::new("/etc/tls/node.key"));
    assert_eq!(config.roster.root_keys.len(), 1);
    assert_eq!(config.policy.sealing_suites, [SealingSuite::Open]);
    assert_eq!((config.limits, config.store), (Limits::default(), Store::default()));
    assert_eq!((config.links, config.log), (Links::default(), Log::default()));
    assert_eq!((config.drain_seconds, config.metrics), (10, None));
    assert!(config.peers.is_empty() && config.clients.is_empty() && config.tls.crls.is_empty());
}

#[test]
fn what_is_set_is_taken() {
    let more = r#"
[metrics]
listen = "[::1]:7104"
[log]
format = "json"
level = "debug"
[limits]
body_bytes = 2_097_152
lifetime_days = 1
[links]
ping_ms = 100
stall_ms = 300
[[peer]]
bureau = "KE"
addresses = ["ke.example:7102", "192.0.2.1:7102", "[2001:db8::1]:7102"]
dial = false
[[peer]]
bureau = "IPSG"
[[client]]
desk = "trafficking"
permissions = ["submit", "receive", "operate"]
"#;
    let config = load(with(more)).unwrap();
    assert_eq!(config.metrics.unwrap().listen, "[::1]:7104".parse().unwrap());
    assert_eq!(config.log, Log { format: LogFormat::Json, level: LogLevel::Debug });
    assert_eq!(config.limits.message.body_bytes, 2 * 1024 * 1024);
    assert_eq!(config.limits.message.lifetime_ms, 24 * 3600 * 1000);
    assert_eq!((config.links.ping_ms, config.links.stall_ms), (100, 300));
    assert_eq!(config.peers.len(), 2);
    assert_eq!((config.peers[0].addresses.len(), config.peers[0].dial), (3, false));
    assert_eq!((config.peers[1].addresses.len(), config.peers[1].dial), (0, true));
    let permissions = [Permission::Submit, Permission::Receive, Permission::Operate];
    assert_eq!(config.clients[0].permissions, permissions);
}

#[test]
fn an_unknown_option_is_named_with_its_line_and_the_known_ones() {
    let error = load(with("[limits]\nrecipients = 5\nbody_byte = 5\n")).unwrap_err();
    let fault = &error.faults[0];
    assert_eq!((error.faults.len(), fault.line), (1, Some(25)));
    assert_eq!((&*fault.field, &*fault.problem), ("limits.body_byte", "unknown option"));
    assert!(fault.cure.starts_with("known here: body_bytes, attachments, "), "{}", fault.cure);
    let error = load(with("[log]\nlevels = \"info\"\n")).unwrap_err();
    assert_eq!(error.faults[0].cure, "known here: format, level");
    assert_eq!(
        faults(with("[[peer]]\nbureau = \"KE\"\n[[peer]]\nbureau = \"BR\"\ndail = true\n")),
        ["27 peer[1].dail: unknown option"]
    );
    assert_eq!(fault_of("bureau = \"FR\"", "bureau = \"FR\"\n\"a\\u001b.b\" = 1"), {
        "3 a\\u{1b}.b: unknown option"
    });
}

#[test]
fn every_fault_is_told_at_once() {
    let text = minimal()
        .replace("\"FR\"", "\"fr\"")
        .replace("threshold = 1", "threshold = \"one\"")
        .replace("127.0.0.1:7103", "127.0.0.1:7101")
        .replace("signing_key", "signingkey")
        .replace("[\"OPEN\"]", "[]");
    let text = format!("{text}[metrics]\nlisten = \"0.0.0.0:9\"\n[links]\nping_ms = 0\nx = 1\n");
    assert_eq!(
        faults(&text),
        [
            "2 bureau: \"fr\" is no bureau code",
            "5 keys.signing_key: missing",
            "6 keys.signingkey: unknown option",
            "14 roster.threshold: invalid type: string \"one\"",
            "20 admin.listen: the same address as desk.listen",
            "22 policy.sealing_suites: empty: nothing could be sent or taken",
            "24 metrics.listen: 0.0.0.0 is not a loopback address",
            "26 links.ping_ms: 0 is out of bounds",
            "27 links.x: unknown option",
        ]
    );
    let shown = load(&text).unwrap_err().to_string();
    assert_eq!(shown.lines().count(), 10, "{shown}");
    assert!(shown.lines().next().unwrap().ends_with("bureau.toml: 9 faults"), "{shown}");
    let line = "  line 26: links.ping_ms: 0 is out of bounds; write 100 to 60000; 5000 unless set";
    assert!(shown.lines().any(|shown| shown == line), "{shown}");
}

#[test]
fn an_empty_file_is_told_everything_that_must_be_there() {
    let missing = faults("");
    for field in [
        "network",
        "bureau",
        "node",
        "data_dir",
        "keys.signing_key",
        "tls.ca",
        "tls.certificate",
        "tls.key",
        "roster.file",
        "roster.root_keys",
        "roster.threshold",
        "desk.listen",
        "link.listen",
        "admin.listen",
        "policy.sealing_suites",
    ] {
        assert!(missing.contains(&format!("0 {field}: missing")), "{field}: {missing:#?}");
    }
    assert_eq!(missing.len(), 15);
}

#[test]
fn wrong_types_are_told_in_words() {
    let error = load(minimal().replace("threshold = 1", "threshold = -1")).unwrap_err();
    assert_eq!(error.faults[0].cure, "write a whole number, without quotes");
    assert_eq!(fault_of("[keys]\nsigning_key = ", "keys = "), {
        "5 keys: invalid type: string \"keys/signing.pem\""
    });
    assert_eq!(fault_of("[\"OPEN\"]", "[7]"), {
        "22 policy.sealing_suites[0]: invalid type: integer `7`"
    });
    assert_eq!(
        faults(with("[limits]\nrecipients = 1.5\n[client]\ndesk = \"a\"\n")),
        [
            "24 limits.recipients: invalid type: floating point `1.5`",
            "25 client: invalid type: map"
        ]
    );
}

#[test]
fn what_is_no_toml_is_told_by_line() {
    let faults = faults("network = \"example\"\nbureau = FR\nnode\n");
    assert!(faults[0].starts_with("2 : not TOML: "), "{faults:?}");
    assert!(faults.iter().any(|fault| fault.starts_with("3 : ")), "{faults:?}");
    let twice = self::faults("network = \"a\"\nnetwork = \"b\"\n");
    assert_eq!(twice.len(), 1, "{twice:?}");
}

#[test]
fn what_is_no_file_is_told() {
    let missing = Config::load(Path::new("/nonexistent/bureau.toml")).unwrap_err();
    assert!(missing.to_string().contains("cannot be read"), "{missing}");
    assert!(faults([0xff, 0xfe])[0].contains("not UTF-8"));
    assert!(faults(vec![b'#'; 2 * 1024 * 1024])[0].contains("larger than"));
    // A device without an end is not read to its end.
    let device = Config::load(Path::new("/dev/zero")).unwrap_err();
    assert!(device.to_string().contains("larger than"), "{device}");
}

#[test]
fn faces_are_apart_and_metrics_stay_here() {
    assert!(fault_of("[::]:7102", "127.0.0.1:7101").contains("the same address as desk"));
    assert!(fault_of("[::]:7102", "0.0.0.0:7101").contains("the same address as desk"));
    assert!(fault_of("127.0.0.1:7101", "localhost:7101").contains("is not an IP address"));
    let free = minimal().replace("7101", "0").replace("7102", "0").replace("7103", "0");
    assert!(load(free).is_ok());
    for good in ["127.0.0.1:9", "127.8.8.8:9", "[::1]:9"] {
        assert!(load(with(&format!("[metrics]\nlisten = \"{good}\"\n"))).is_ok(), "{good}");
    }
    for bad in ["0.0.0.0:9", "[::]:9", "192.0.2.1:9", "[::ffff:127.0.0.1]:9"] {
        assert!(load(with(&format!("[metrics]\nlisten = \"{bad}\"\n"))).is_err(), "{bad}");
    }
    assert_eq!(faults(with("[metrics]\n")), ["23 metrics.listen: missing"]);
}

#[test]
fn only_known_suites_by_name() {
    assert!(fault_of("\"OPEN\"", "\"OPEN\", \"X\"").contains("[1]: \"X\" is not known"));
    assert!(fault_of("\"OPEN\"", "\"open\"").contains("\"open\" is not known"));
    assert!(fault_of("sealing_suites = [\"OPEN\"]", "").ends_with("sealing_suites: missing"));
}

#[test]
fn root_keys_are_strong_and_enough() {
    let weak = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
    let twice = format!("{ROOT_KEY}\", \"{ROOT_KEY}");
    assert!(fault_of(ROOT_KEY, weak).starts_with("13 roster.root_keys[0]: "));
    assert!(fault_of(ROOT_KEY, "<base64 of 32 bytes>").contains("not the base64 of 32 bytes"));
    assert!(fault_of(ROOT_KEY, &ROOT_KEY[1..]).contains("not the base64"));
    assert!(fault_of("URo=", "URp=").contains("not the base64"), "one text a key");
    assert!(fault_of(ROOT_KEY, &twice).contains("listed twice"));
    assert!(fault_of("threshold = 1", "threshold = 0").contains("0 of 1 root keys"));
    assert!(fault_of("threshold = 1", "threshold = 2").contains("2 of 1 root keys"));
    assert!(fault_of(&format!("[\"{ROOT_KEY}\"]"), "[]").contains("root_keys: empty"));
}

#[test]
fn peers_and_desks_are_told_apart() {
    let peer = |bureau: &str, more: &str| format!("[[peer]]\nbureau = \"{bureau}\"\n{more}\n");
    let desk =
        |desk: &str, may: &str| format!("[[client]]\ndesk = \"{desk}\"\npermissions = {may}\n");
    let one = |more: String| {
        let faults = faults(with(&more));
        assert_eq!(faults.len(), 1, "{faults:#?}");
        faults.concat()
    };
    assert!(one(peer("FR", "")).contains("FR is this bureau itself"));
    assert!(one(peer("KE", "") + &peer("KE", "")).starts_with("27 peer[1].bureau: KE is a peer"));
    assert!(one("[[peer]]\ndial = true\n".to_owned()).contains("peer[0].bureau: missing"));
    assert!(one(desk("a", "[]")).contains("permissions: empty"));
    assert!(one("[[client]]\ndesk = \"a\"\n".to_owned()).contains("permissions: missing"));
    assert!(one(desk("a", "[\"submit\", \"rule\"]")).contains("permissions[1]: \"rule\""));
    assert!(one(desk("A", "[\"submit\"]")).contains("\"A\" is no desk name"));
    assert!(one(desk("a", "[\"audit\"]") + &desk("a", "[\"audit\"]")).contains("listed already"));
    for bad in [
        "ke.example",
        "ke.example:",
        ":7102",
        "ke.example:0",
        "ke.example:65536",
        "ke.example:+1",
        "2001:db8::1:7102",
        "[2001:db8::1]",
        "[ke]:7102",
        "300.1.1.1:7102",
        "http://ke:7102",
        "ke/x:7102",
        "ke x:7102",
        "ke\u{202e}:7102",
        "user@ke:7102",
        "a..b:7102",
    ] {
        let fault = one(peer("KE", &format!("addresses = [\"{bad}\"]")));
        assert!(fault.contains("is not host:port"), "{bad}: {fault}");
        assert!(fault.is_ascii(), "{fault}");
    }
}

#[test]
fn numbers_stay_within_their_bounds() {
    let out = |table: &str, line: &str| {
        let faults = faults(with(&format!("[{table}]\n{line}\n")));
        assert_eq!(faults.len(), 1, "{faults:#?}");
        faults.concat()
    };
    for option in ["body_bytes", "recipients", "lifetime_days", "handshakes"] {
        for value in ["0", "9_000_000_000"] {
            let fault = out("limits", &format!("{option} = {value}"));
            assert!(fault.contains("out of bounds"), "{fault}");
        }
    }
    assert!(out("limits", "handshakes = 8").contains("more than limits.handshakes (8)"));
    assert!(out("links", "stall_ms = 6000").contains("less than twice links.ping_ms"));
    assert!(out("links", "backoff_max_ms = 100").contains("less than links.backoff_base_ms"));
    assert!(out("store", "snapshot_bytes = 8_388_608").contains("less than store.journal"));
    assert!(fault_of("node =", "drain_seconds = 0\nnode =").contains("drain_seconds: 0 is out"));
}

#[test]
fn no_file_panics_and_faults_are_bounded() {
    let good =
        with("[[peer]]\nbureau = \"KE\"\n[[client]]\ndesk = \"a\"\npermissions = [\"audit\"]\n");
    for cut in 0..good.len() {
        drop(load(&good[..cut]));
    }
    let many: String = (0..500).map(|number| format!("x{number} = 1\n")).collect();
    assert_eq!(faults(many).len(), 50);
}
