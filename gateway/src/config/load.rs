//! Puts a configuration together: defaults < file < environment < flags.

use std::path::{Path, PathBuf};

use figment::providers::{Format, Serialized, Toml};
use figment::value::{Dict, Map, Value};
use figment::{Figment, Metadata, Profile, Provider};

use super::Config;

/// Where a configuration comes from. The environment is passed in, so that tests need not change theirs.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// `--dev`.
    pub dev: bool,
    /// `--config`.
    pub file: Option<PathBuf>,
    /// Environment variables; those that do not begin with `SKEIN_` are passed over.
    pub environment: Vec<(String, String)>,
    /// Flags as (key, value): `("journal.file_bytes", "64MiB")`.
    pub flags: Vec<(String, String)>,
}

/// Why there is no configuration: which key, from where, and what is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration file {path}: {why}")]
    Unreadable {
        /// As given.
        path: String,
        /// What the system said.
        why: String,
    },
    /// The file is not TOML.
    #[error("{path} is not TOML: {why}")]
    NotToml {
        /// As given.
        path: String,
        /// What the parser said.
        why: String,
    },
    /// There is no such key.
    #[error("unknown key {key:?} ({origin}){}", nearest.as_ref().map(|it| format!("; did you mean {it:?}?")).unwrap_or_default())]
    UnknownKey {
        /// Dotted.
        key: String,
        /// The file, variable or flag.
        origin: String,
        /// A key that looks like it.
        nearest: Option<String>,
    },
    /// The value does not do.
    #[error("key {key:?} ({origin}): {why}")]
    BadValue {
        /// Dotted.
        key: String,
        /// The file, variable or flag, or "default".
        origin: String,
        /// What is wrong.
        why: String,
    },
}

/// Variables of other commands, which are not keys of a node.
pub const NOT_KEYS: [&str; 10] = [
    "SKEIN_ADMIN_KEY",
    "SKEIN_CA",
    "SKEIN_CONFIG",
    "SKEIN_HOME",
    "SKEIN_OUTPUT",
    "SKEIN_PASSWORD",
    "SKEIN_PROFILE",
    "SKEIN_SERVER",
    "SKEIN_TLS",
    "SKEIN_TOKEN",
];

/// Puts the configuration together and checks it.
pub fn load(sources: &Sources) -> Result<Config, ConfigError> {
    let defaults = if sources.dev { Config::dev() } else { Config::default() };
    let known = Value::serialize(&defaults).expect("a Config is plain data");
    let mut figment = Figment::from(Serialized::defaults(&defaults));
    if let Some(path) = &sources.file {
        figment = figment.merge(file_layer(path, &known)?);
    }
    for layer in environment_layers(sources).chain(flag_layers(sources)) {
        figment = figment.merge(layer.checked(&known)?);
    }
    let mut config: Config = figment.extract().map_err(|error| bad_value(&figment, error))?;
    config.dev = sources.dev;
    config.check().map_err(|(key, why)| ConfigError::BadValue {
        key: key.into(),
        origin: origin_of(&figment, key),
        why,
    })?;
    Ok(config)
}

/// Every key of a configuration with its value as text, in order.
pub fn keys_of(config: &Config) -> Vec<(String, String)> {
    let mut keys = Vec::new();
    flatten("", &Value::serialize(config).expect("a Config is plain data"), &mut keys);
    keys.into_iter().map(|(key, value)| (key, text_of(&value))).collect()
}

/// One value for one key, and where it was said.
struct Layer {
    key: String,
    value: Value,
    origin: String,
}

impl Layer {
    /// Text as the key's type wants it: a key whose default is text takes it as it is, others as TOML would.
    fn new(key: String, text: &str, origin: String) -> Layer {
        Layer { key, value: Value::from(text), origin }
    }

    fn checked(mut self, known: &Value) -> Result<Layer, ConfigError> {
        let Some(default) = known.find_ref(&self.key).filter(|default| default.as_dict().is_none()) else {
            return Err(unknown_key(self.key, self.origin, known));
        };
        if let (None, Some(text)) = (default.as_str(), self.value.as_str()) {
            self.value = parse_like(default, text);
        }
        Ok(self)
    }
}

impl Provider for Layer {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.origin.clone())
    }

    fn data(&self) -> figment::Result<Map<Profile, Dict>> {
        Serialized::default(&self.key, &self.value).data()
    }
}

fn parse_like(default: &Value, text: &str) -> Value {
    // figment counts letters where it cuts bytes: an escape after a letter outside ASCII makes it panic. Such a text is a text.
    let is_text = text.contains('\\') && !text.is_ascii();
    let parsed: Value =
        if is_text { Value::from(text) } else { text.parse().unwrap_or_else(|infallible| match infallible {}) };
    match (default.as_array(), parsed.as_array()) {
        (Some(_), None) => Value::from(text.split(',').map(str::trim).collect::<Vec<_>>()),
        _ => parsed,
    }
}

fn environment_layers(sources: &Sources) -> impl Iterator<Item = Layer> + '_ {
    let ours =
        sources.environment.iter().filter(|(name, _)| name.starts_with("SKEIN_") && !NOT_KEYS.contains(&name.as_str()));
    ours.map(|(name, text)| {
        let key = name["SKEIN_".len()..].to_lowercase().replace("__", ".");
        Layer::new(key, text, format!("environment variable {name}"))
    })
}

fn flag_layers(sources: &Sources) -> impl Iterator<Item = Layer> + '_ {
    sources.flags.iter().map(|(key, text)| Layer::new(key.clone(), text, format!("flag for {key}")))
}

/// What the file says, its keys all known.
struct FileLayer {
    path: String,
    data: Map<Profile, Dict>,
}

impl Provider for FileLayer {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.path.clone())
    }

    fn data(&self) -> figment::Result<Map<Profile, Dict>> {
        Ok(self.data.clone())
    }
}

fn file_layer(path: &Path, known: &Value) -> Result<FileLayer, ConfigError> {
    let shown = path.display().to_string();
    let text = std::fs::read_to_string(path)
        .map_err(|error| ConfigError::Unreadable { path: shown.clone(), why: error.to_string() })?;
    let not_toml =
        |error: figment::Error| ConfigError::NotToml { path: shown.clone(), why: one_line(&error.kind.to_string()) };
    let data = Toml::string(&text).data().map_err(not_toml)?;
    let mut keys = Vec::new();
    for dict in data.values() {
        flatten("", &Value::from(dict.clone()), &mut keys);
    }
    match keys.into_iter().find(|(key, _)| known.find_ref(key).is_none()) {
        Some((key, _)) => Err(unknown_key(key, shown, known)),
        None => Ok(FileLayer { path: shown, data }),
    }
}

fn flatten(prefix: &str, value: &Value, into: &mut Vec<(String, Value)>) {
    match value.as_dict() {
        Some(dict) => {
            for (name, value) in dict {
                let key = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
                flatten(&key, value, into);
            }
        }
        None => into.push((prefix.to_owned(), value.clone())),
    }
}

fn text_of(value: &Value) -> String {
    match value {
        Value::String(_, text) => text.clone(),
        Value::Bool(_, flag) => flag.to_string(),
        Value::Array(_, items) => items.iter().map(text_of).collect::<Vec<_>>().join(","),
        other => match (other.to_u128(), other.to_i128()) {
            (Some(number), _) => number.to_string(),
            (None, number) => number.map(|number| number.to_string()).unwrap_or_default(),
        },
    }
}

fn bad_value(figment: &Figment, error: figment::Error) -> ConfigError {
    let key = error.path.join(".");
    let origin = match &error.metadata {
        Some(metadata) => shown(metadata),
        None => origin_of(figment, &key),
    };
    ConfigError::BadValue { key, origin, why: one_line(&error.kind.to_string()) }
}

fn origin_of(figment: &Figment, key: &str) -> String {
    figment.find_metadata(key).map_or_else(|| "default".into(), shown)
}

fn shown(metadata: &Metadata) -> String {
    match &metadata.source {
        Some(_) => "default".into(),
        None => metadata.name.to_string(),
    }
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn unknown_key(key: String, origin: String, known: &Value) -> ConfigError {
    let mut keys = Vec::new();
    flatten("", known, &mut keys);
    let near = keys.into_iter().map(|(known, _)| (distance(&known, &key), known)).min();
    let nearest = near.filter(|(distance, _)| *distance <= (key.len() / 3).clamp(1, 4)).map(|(_, known)| known);
    ConfigError::UnknownKey { key, origin, nearest }
}

/// How many letters have to be put in, taken out or changed to make one of the other.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.bytes().enumerate() {
            let change = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = change.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests;
