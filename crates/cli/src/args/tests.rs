//! What may be typed and what not.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests fail by panicking"
)]

use clap::{Command as ClapCommand, CommandFactory as _, Parser as _};

use super::*;
use crate::commands::send::{Handling, Kind, Lane};

fn parse(line: &str) -> Result<Arguments, clap::Error> {
    Arguments::try_parse_from(line.split(' '))
}

fn each_command(command: &ClapCommand, look: &mut impl FnMut(&ClapCommand)) {
    look(command);
    command.get_subcommands().for_each(|inner| each_command(inner, look));
}

#[test]
fn the_definition_holds_together() {
    Arguments::command().debug_assert();
}

#[test]
fn every_flag_has_a_variable_and_a_text() {
    each_command(&Arguments::command(), &mut |command| {
        for flag in command.get_arguments().filter(|flag| !flag.is_positional()) {
            let name = format!("{} --{}", command.get_name(), flag.get_id());
            assert!(flag.get_help().is_some() || flag.is_hide_set(), "{name} has no help");
            if ["help", "version"].contains(&flag.get_id().as_str()) {
                continue;
            }
            let variable = flag.get_env().unwrap_or_default().to_string_lossy().into_owned();
            assert!(variable.starts_with("BUREAU_"), "{name} has the variable {variable:?}");
        }
    });
}

#[test]
fn every_command_says_what_it_does() {
    each_command(&Arguments::command(), &mut |command| {
        assert!(command.get_about().is_some(), "{}", command.get_name());
    });
}

#[test]
fn a_message_is_read_from_its_flags() {
    let line = "bureau --desk d.toml send --to KE,BR --to US --lane flash --kind Request \
                --handling h2 --expires 2h --exercise --case A/1 -o json report.txt";
    let arguments = parse(line).unwrap();
    assert_eq!(arguments.format(), Format::Json);
    assert_eq!(arguments.global.desk.unwrap().to_str(), Some("d.toml"));
    let Command::Send(send) = arguments.command else { panic!("not send") };
    assert_eq!(send.to, ["KE", "BR", "US"]);
    assert_eq!((send.lane, send.kind, send.handling), (Lane::Flash, Kind::Request, Handling::H2));
    assert!(send.exercise && !send.hide_recipients);
    assert_eq!((send.case_reference.as_str(), send.media_type.as_str()), ("A/1", "text/plain"));
}

#[test]
fn what_cannot_be_meant_is_refused() {
    for line in [
        "bureau",
        "bureau send report.txt",
        "bureau send --to KE",
        "bureau send --to KE --lane SOON report.txt",
        "bureau send --to KE --expires soon report.txt",
        "bureau send --to KE --request-id 7 report.txt",
        "bureau inbox",
        "bureau inbox ack",
        "bureau inbox watch --count 0",
        "bureau demo --messages 0",
        "bureau demo --messages 5001",
        "bureau net init example",
        "bureau net init example --bureau fr --bureau KE",
        "bureau net init example --bureau FR --bureau KE --port-base 70000",
        "bureau serve",
        "bureau peers --output xml",
        "bureau peers ping",
        "bureau peers ping KE --count 0",
        "bureau peers retry",
    ] {
        assert_eq!(parse(line).err().map(|error| error.exit_code()), Some(2), "{line}");
    }
}

#[test]
fn what_can_be_meant_is_taken() {
    for line in [
        "bureau demo",
        "bureau demo -o json --messages 50 --keep there",
        "bureau net init example --bureau FR,KE --hub IPSG --links hub --network a.example",
        "bureau net init example --bureau FR,KE --hub EUR,AFR --links region",
        "bureau serve --config bureau.toml",
        "bureau check --config bureau.toml",
        "bureau send --to KE --expires 2027-01-31T12:00:00Z -",
        "bureau inbox list --all --limit 7",
        "bureau inbox show #12 --content",
        "bureau inbox watch --after 7 --ack",
        "bureau inbox ack abcdef #12",
        "bureau track abcdef",
        "bureau queue list --recipient KE",
        "bureau peers",
        "bureau peers ping KE --count 5",
        "bureau peers retry KE",
        "bureau status --desk desk.toml",
        "bureau bundle export --to KE --file to-ke.bundle -o json",
        "bureau bundle import to-ke.bundle",
        "bureau bundle list --bureau KE",
    ] {
        assert!(parse(line).is_ok(), "{line}");
    }
}

#[test]
fn help_fits_a_terminal() {
    each_command(&Arguments::command(), &mut |command| {
        let help = command.clone().render_long_help().to_string();
        for line in help.lines().filter(|line| !line.contains("[possible values: ")) {
            assert!(line.chars().count() <= 100, "{}: {line}", command.get_name());
        }
    });
}

#[test]
fn o_names_the_file_of_a_bundle_and_the_format_of_everything_else() {
    let words = |line: &str| {
        let words = with_bundle_file(line.split(' ').map(OsString::from));
        words.into_iter().map(|word| word.into_string().unwrap()).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(
        words("bureau -o json bundle export --to KE -o to-ke.bundle"),
        "bureau -o json bundle export --to KE --file to-ke.bundle"
    );
    for same in ["bureau bundle list -o json", "bureau queue list -o nonsense", "bureau status -o"]
    {
        assert_eq!(words(same), same);
    }
}
