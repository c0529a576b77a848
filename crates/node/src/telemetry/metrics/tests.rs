#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::collections::BTreeSet;

use super::*;

fn bureau(code: &str) -> BureauCode {
    code.parse().unwrap()
}

fn has(text: &str, line: &str) -> bool {
    text.lines().any(|found| found == line)
}

#[test]
fn what_happens_is_counted_under_its_name() {
    let metrics = Metrics::new();
    metrics.accepted(Lane::Flash, Duration::from_micros(300));
    metrics.accepted(Lane::Flash, Duration::from_millis(3));
    metrics.delivered(Lane::Routine);
    metrics.relayed(Lane::Priority);
    metrics.acknowledged();
    metrics.expired();
    metrics.expiry_near();
    metrics.refused("desk", "BODY_TOO_LARGE");
    metrics.receipt(ReceiptKind::PassedOn);
    metrics.connect_attempt(bureau("KE"));
    metrics.desk_request("Submit", tonic::Code::InvalidArgument);
    metrics.committed(Duration::from_millis(1));
    metrics.forwarded(Duration::from_secs(60));
    let text = metrics.encode().unwrap();
    for line in [
        "bureau_accepted_total{lane=\"FLASH\"} 2",
        "bureau_accepted_total{lane=\"ROUTINE\"} 0",
        "bureau_delivered_total{lane=\"ROUTINE\"} 1",
        "bureau_relayed_total{lane=\"PRIORITY\"} 1",
        "bureau_acknowledged_total 1",
        "bureau_expired_total 1",
        "bureau_expiry_near_total 1",
        "bureau_refused_total{reason=\"BODY_TOO_LARGE\",face=\"desk\"} 1",
        "bureau_receipts_total{kind=\"PASSED_ON\"} 1",
        "bureau_receipts_total{kind=\"DELIVERED\"} 0",
        "bureau_links_connect_attempts_total{peer=\"KE\"} 1",
        "bureau_desk_requests_total{method=\"Submit\",code=\"INVALID_ARGUMENT\"} 1",
        "bureau_accept_seconds_bucket{le=\"0.00025\"} 0",
        "bureau_accept_seconds_bucket{le=\"0.0005\"} 1",
        "bureau_accept_seconds_count 2",
        "bureau_commit_seconds_count 1",
        "bureau_forward_seconds_bucket{le=\"60.0\"} 1",
        "bureau_build_info{version=\"0.1.0\"} 1",
    ] {
        assert!(has(&text, line), "{line} is not in\n{text}");
    }
    assert!(text.ends_with("# EOF\n"));
}

#[test]
fn gauges_are_read_when_asked_for_and_stale_ones_are_gone() {
    let metrics = Metrics::new();
    metrics.on_scrape(|gauges| {
        gauges.queue(bureau("KE"), Lane::Flash, 7, Duration::from_millis(1500));
        gauges.held(bureau("KE"), "POISON", 2);
        gauges.link(bureau("KE"), true, 3, Duration::from_millis(250));
        gauges.link(bureau("BR"), false, 0, Duration::from_secs(9));
        gauges.certificate_expiry(Timestamp::from_ms(1_800_000_000_500));
        gauges.roster_expiry(Timestamp::from_ms(1_900_000_000_000));
        gauges.disk_free(1 << 40);
    });
    let text = metrics.encode().unwrap();
    for line in [
        "bureau_queue_messages{destination=\"KE\",lane=\"FLASH\"} 7",
        "bureau_queue_oldest_age_seconds{destination=\"KE\",lane=\"FLASH\"} 1.5",
        "bureau_held_messages{destination=\"KE\",reason=\"POISON\"} 2",
        "bureau_link_up{peer=\"KE\"} 1",
        "bureau_link_up{peer=\"BR\"} 0",
        "bureau_link_in_flight{peer=\"KE\"} 3",
        "bureau_link_round_trip_seconds{peer=\"KE\"} 0.25",
        "bureau_certificate_expiry_timestamp_seconds 1800000000.5",
        "bureau_roster_expiry_timestamp_seconds 1900000000.0",
        "bureau_disk_free_bytes 1099511627776",
    ] {
        assert!(has(&text, line), "{line} is not in\n{text}");
    }
    assert!(!text.contains("round_trip_seconds{peer=\"BR\"}"), "{text}");

    metrics.on_scrape(|gauges| gauges.link(bureau("BR"), true, 0, Duration::ZERO));
    let text = metrics.encode().unwrap();
    assert!(has(&text, "bureau_link_up{peer=\"BR\"} 1"), "{text}");
    assert!(!text.contains("\"KE\""), "{text}");
}

#[test]
fn the_process_tells_its_memory_and_start() {
    let text = Metrics::new().encode().unwrap();
    let value = |name: &str| -> f64 {
        let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.trim().parse().unwrap()
    };
    assert!(value("bureau_process_resident_memory_bytes ") > 100_000.0);
    assert!(value("bureau_process_start_time_seconds ") > 1_700_000_000.0);
}

#[test]
fn refused_handshakes_are_taken_from_the_acceptor() {
    let metrics = Metrics::new();
    metrics.watch_handshakes("link", Arc::new(AcceptorCounters::default()));
    let text = metrics.encode().unwrap();
    let line = "bureau_handshakes_refused_total{face=\"link\",reason=\"NO_CERTIFICATE\"} 0";
    assert!(has(&text, line), "{text}");
}

#[test]
fn a_peers_words_make_no_series() {
    let metrics = Metrics::new();
    for number in 0..1000 {
        metrics.refused("link", &format!("WORD_{number}"));
    }
    metrics.refused("link", "x\"} 1\nforged_total 1");
    let text = metrics.encode().unwrap();
    assert!(has(&text, "bureau_refused_total{reason=\"OTHER\",face=\"link\"} 1001"), "{text}");
    assert!(!text.contains("WORD") && !text.contains("forged"));
}

#[test]
fn every_name_has_the_prefix_a_help_and_stands_once() {
    let metrics = Metrics::new();
    metrics.refused("desk", "MALFORMED");
    metrics.connect_attempt(bureau("KE"));
    metrics.custody_overdue("IPSG");
    metrics.desk_request("Submit", tonic::Code::Ok);
    metrics.watch_handshakes("desk", Arc::default());
    metrics.on_scrape(|gauges| {
        gauges.queue(bureau("KE"), Lane::Flash, 1, Duration::from_secs(1));
        gauges.held(bureau("KE"), "OPERATOR", 1);
        gauges.link(bureau("KE"), true, 1, Duration::from_secs(1));
    });
    let text = metrics.encode().unwrap();
    let helps = text.lines().filter_map(|line| line.strip_prefix("# HELP "));
    let names: Vec<&str> = helps.map(|help| help.split_once(' ').unwrap().0).collect();
    assert_eq!(names.len(), 31, "{names:?}");
    assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len());
    assert!(names.iter().all(|name| name.starts_with("bureau_")), "{names:?}");
    let samples = text.lines().filter(|line| !line.starts_with('#'));
    assert!(samples.clone().count() > 20);
    assert!(samples.clone().all(|line| line.starts_with("bureau_")), "{text}");
}
