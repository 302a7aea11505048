use super::super::{Size, Span};
use super::*;

fn file(text: &str) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("skein.toml");
    std::fs::write(&path, text).unwrap();
    (dir, path)
}

fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(a, b)| (a.to_string(), b.to_string())).collect()
}

#[test]
fn without_any_source_the_defaults_hold() {
    assert_eq!(load(&Sources::default()).unwrap(), Config::default());
    assert_eq!(load(&Sources { dev: true, ..Sources::default() }).unwrap(), Config::dev());
}

#[test]
fn flags_beat_the_environment_which_beats_the_file_which_beats_defaults() {
    let (_dir, path) =
        file("shards = 5\ndrain_timeout = \"1m\"\n[journal]\nfile_bytes = \"32MiB\"\nreserve_files = 3\n");
    let sources = Sources {
        file: Some(path),
        environment: pairs(&[("SKEIN_SHARDS", "6"), ("SKEIN_JOURNAL__FILE_BYTES", "16MiB"), ("PATH", "/bin")]),
        flags: pairs(&[("shards", "7")]),
        ..Sources::default()
    };
    let config = load(&sources).unwrap();
    assert_eq!(config.shards, 7);
    assert_eq!(config.journal.file_bytes, Size(16 << 20));
    assert_eq!(config.journal.reserve_files, 3);
    assert_eq!(config.drain_timeout, Span(std::time::Duration::from_secs(60)));
    assert_eq!(config.http, Config::default().http);
}

#[test]
fn every_key_can_be_said_in_the_environment() {
    for config in [Config::default(), Config::dev()] {
        let keys = keys_of(&config);
        let environment =
            keys.iter().map(|(key, text)| (format!("SKEIN_{}", key.replace('.', "__").to_uppercase()), text.clone()));
        let sources = Sources { environment: environment.collect(), dev: config.dev, ..Sources::default() };
        assert_eq!(load(&sources).unwrap(), config);
    }
}

#[test]
fn an_unknown_key_of_the_file_is_named_with_its_section() {
    let (_dir, path) = file("[journal]\nfile_byte = \"32MiB\"\n");
    let error = load(&Sources { file: Some(path.clone()), ..Sources::default() }).unwrap_err();
    let expected = ConfigError::UnknownKey {
        key: "journal.file_byte".into(),
        origin: path.display().to_string(),
        nearest: Some("journal.file_bytes".into()),
    };
    assert_eq!(error, expected);
}

#[test]
fn an_unknown_section_and_an_unknown_limit_are_named() {
    for (text, key) in [("[jurnal]\nx = 1\n", "jurnal.x"), ("[limits]\ncolour = 1\n", "limits.colour")] {
        let (_dir, path) = file(text);
        let error = load(&Sources { file: Some(path), ..Sources::default() }).unwrap_err();
        assert!(matches!(&error, ConfigError::UnknownKey { key: found, .. } if found == key), "{error}");
    }
}

#[test]
fn an_unknown_key_of_the_environment_is_named_with_its_variable() {
    let sources = Sources { environment: pairs(&[("SKEIN_LISTENS", "127.0.0.1:1")]), ..Sources::default() };
    let shown = load(&sources).unwrap_err().to_string();
    assert_eq!(shown, "unknown key \"listens\" (environment variable SKEIN_LISTENS); did you mean \"listen\"?");
}

#[test]
fn only_what_is_near_is_suggested() {
    let near = |key| match load(&Sources { flags: pairs(&[(key, "1")]), ..Sources::default() }) {
        Err(ConfigError::UnknownKey { nearest, .. }) => nearest,
        other => panic!("{other:?}"),
    };
    assert_eq!(near("journal.file_byte").as_deref(), Some("journal.file_bytes"));
    assert_eq!(near("shard").as_deref(), Some("shards"));
    assert_eq!((near("bogus"), near("x")), (None, None));
}

#[test]
fn levels_may_be_given_for_parts() {
    for level in ["info", "WARN", "off", "info,gateway=debug, openraft=error"] {
        load(&Sources { flags: pairs(&[("log.level", level)]), ..Sources::default() }).unwrap();
    }
}

#[test]
fn a_section_is_not_a_key() {
    let sources = Sources { flags: pairs(&[("journal", "5")]), ..Sources::default() };
    assert!(matches!(load(&sources), Err(ConfigError::UnknownKey { .. })));
}

#[test]
fn variables_of_other_commands_are_no_keys() {
    let sources =
        Sources { environment: pairs(&[("SKEIN_SERVER", "a:1"), ("SKEIN_TOKEN", "x")]), ..Sources::default() };
    assert!(load(&sources).is_ok());
}

#[test]
fn a_bad_value_names_its_key_and_where_it_was_said() {
    for (key, text) in [
        ("listen", "nowhere"),
        ("journal.file_bytes", "big"),
        ("shards", "many"),
        ("roles", "gateway,juggler"),
        ("auth.access_token_lifetime", "soon"),
        ("tls.allow_plain_tcp_on_public_addresses", "perhaps"),
        ("limits.text_bytes", "long"),
    ] {
        let error = load(&Sources { flags: pairs(&[(key, text)]), ..Sources::default() }).unwrap_err();
        let shown = error.to_string();
        let section = key.split('.').next().unwrap();
        assert!(shown.contains(section) && !shown.contains('\n'), "{key}: {shown}");
        assert!(matches!(error, ConfigError::BadValue { .. }), "{key}: {shown}");
    }
}

#[test]
fn a_bad_value_of_the_file_names_the_file() {
    let (_dir, path) = file("shards = \"x\"\n");
    let shown = load(&Sources { file: Some(path.clone()), ..Sources::default() }).unwrap_err().to_string();
    assert!(shown.contains("shards") && shown.contains(&path.display().to_string()), "{shown}");
}

#[test]
fn plain_tcp_on_a_public_address_needs_as_many_words() {
    let public = |more: &[(&str, &str)]| {
        let mut flags = pairs(&[("listen", "0.0.0.0:7400")]);
        flags.extend(pairs(more));
        load(&Sources { flags, ..Sources::default() })
    };
    assert!(public(&[]).unwrap_err().to_string().contains("tls.allow_plain_tcp_on_public_addresses"));
    assert!(public(&[("tls.allow_plain_tcp_on_public_addresses", "true")]).is_ok());
    assert!(public(&[("tls.cert", "c.pem"), ("tls.key", "k.pem")]).is_ok());
}

#[test]
fn dev_mode_listens_on_loopback_only() {
    for (key, address) in [("listen", "0.0.0.0:7400"), ("http", "[::]:7401"), ("listen", "10.1.2.3:7400")] {
        let flags = pairs(&[(key, address), ("tls.allow_plain_tcp_on_public_addresses", "true")]);
        let shown = load(&Sources { dev: true, flags, ..Sources::default() }).unwrap_err().to_string();
        assert!(shown.contains("loopback"), "{shown}");
    }
}

#[test]
fn values_that_cannot_work_together_are_refused() {
    for (key, text) in [
        ("roles", "core"),
        ("shards", "0"),
        ("shards", "4097"),
        ("tls.cert", "only.pem"),
        ("journal.reserve_files", "1"),
        ("journal.held_files_max", "1"),
        ("journal.block_bytes_max", "512MiB"),
        ("sequencer.entries_in_flight", "0"),
        ("auth.refresh_token_lifetime", "1m"),
        ("limits.frame_bytes", "1MiB"),
        ("limits.text_bytes", "64KiB"),
        ("limits.batch_messages", "0"),
        ("limits.password_bytes_min", "2000"),
        ("log.level", "loud"),
        ("log.level", "info,gateway=loud"),
        ("log.level", ""),
    ] {
        let error = load(&Sources { flags: pairs(&[(key, text)]), ..Sources::default() }).unwrap_err();
        assert!(matches!(&error, ConfigError::BadValue { .. }), "{key}: {error}");
    }
}

#[test]
fn a_file_that_is_missing_or_not_toml_is_said_so() {
    let missing = Sources { file: Some("/nonexistent/skein.toml".into()), ..Sources::default() };
    assert!(matches!(load(&missing), Err(ConfigError::Unreadable { .. })));
    let (_dir, path) = file("shards = = 5");
    assert!(matches!(load(&Sources { file: Some(path), ..Sources::default() }), Err(ConfigError::NotToml { .. })));
}

mod properties {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_escape_after_a_letter_outside_ascii_is_refused_like_any_text() {
        for (key, _) in keys_of(&Config::default()) {
            let _ = load(&Sources { flags: vec![(key, "\"Σ\\0\"".to_string())], ..Sources::default() });
        }
        let refused = load(&Sources {
            flags: vec![("sequencer.shards".to_string(), "\"Σ\\0\"".to_string())],
            ..Sources::default()
        });
        assert!(refused.is_err());
    }

    proptest! {
        #[test]
        fn no_text_for_any_key_panics(index in 0usize..100, text in "\\PC{0,40}") {
            let keys = keys_of(&Config::default());
            let key = keys[index % keys.len()].0.clone();
            let _ = load(&Sources { flags: vec![(key, text)], ..Sources::default() });
        }
    }
}
