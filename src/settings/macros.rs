//! The macro that makes structs, defaults and the table of settings from one row per setting.

/// A struct per section and a row per setting:
///
/// ```text
/// /// Help: the first paragraph is the short one.
/// key: Type = default, [Effect, Chooser, flags...];
/// ```
///
/// `[]` marks a field that is no setting: a section of its own, or what the program keeps for itself. Makes the structs
/// with `Default` and serde, and `ROWS`.
macro_rules! settings {
    ($(
        $(#[$meta:meta])*
        struct $section:ident at $path:tt under $heading:literal {
            $($(#[doc = $doc:literal])+ $field:ident: $type:ty = $default:expr, $row:tt;)+
        }
    )+) => {
        $(
            $(#[$meta])*
            #[derive(Clone, Debug, PartialEq, ::serde::Serialize, ::serde::Deserialize)]
            #[serde(default, deny_unknown_fields)]
            #[non_exhaustive]
            pub struct $section {
                $($(#[doc = $doc])+ pub $field: $type,)+
            }

            impl Default for $section {
                fn default() -> Self {
                    $section { $($field: $default,)+ }
                }
            }
        )+

        static ROWS: &[Option<Setting>] = &[$($(settings!(@row $path $heading $field $type, [$($doc),+] $row),)+)+];
    };
    (@row $path:tt $heading:literal $field:ident $type:ty, $docs:tt []) => { None };
    (
        @row [$($path:ident).*] $heading:literal $field:ident $type:ty, $docs:tt
        [$effect:ident, $chooser:ident, $($flag:expr),+]
    ) => {
        Some(Setting {
            key: concat!($(stringify!($path), ".",)* stringify!($field)),
            heading: $heading,
            docs: &$docs,
            effect: Effect::$effect,
            chooser: Chooser::$chooser,
            flags: &[$($flag),+],
            names: <$type as Value>::NAMES,
            read: <$type as Value>::read,
            get: |config| toml::Value::try_from(&config $(.$path)* .$field).ok(),
            set: |config, value| {
                config $(.$path)* .$field = value.try_into()?;
                Ok(())
            },
            copy: |to, from| to $(.$path)* .$field.clone_from(&from $(.$path)* .$field),
            same: |a, b| a $(.$path)* .$field == b $(.$path)* .$field,
            leaves: |config| config $(.$path)* .$field.leaves(),
            form: |config| config $(.$path)* .$field.form(),
        })
    };
}

pub(super) use settings;
