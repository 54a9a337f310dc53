//! Enums of plain names: one macro writes the list, `Display`, `FromStr` and serde, so that a name stands once.

/// Declares an enum whose variants have names, as files and flags spell them.
///
/// Gives it `NAMES` and `ALL` in the order they are listed to people, `name`, `Display`, `FromStr` (with a sentence as
/// the error) and serde by name.
macro_rules! named {
    (
        $(#[$meta:meta])*
        $vis:vis enum $type:ident { $($(#[$of_variant:meta])* $variant:ident = $name:literal),+ $(,)? }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        $vis enum $type {
            $($(#[$of_variant])* $variant),+
        }

        impl $type {
            /// Every name, in the order they are listed to people.
            pub const NAMES: &[&str] = &[$($name),+];

            /// Every variant, in the order of the names.
            pub const ALL: &[$type] = &[$($type::$variant),+];

            /// The name in files and flags.
            pub fn name(self) -> &'static str {
                match self { $($type::$variant => $name),+ }
            }
        }

        impl ::std::fmt::Display for $type {
            fn fmt(&self, f: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
                f.pad(self.name())
            }
        }

        impl ::std::str::FromStr for $type {
            type Err = String;

            fn from_str(text: &str) -> ::std::result::Result<Self, String> {
                Self::ALL
                    .iter()
                    .copied()
                    .find(|it| it.name() == text)
                    .ok_or_else(|| format!("one of {} is wanted, got `{text}`", Self::NAMES.join(", ")))
            }
        }

        impl ::serde::Serialize for $type {
            fn serialize<S: ::serde::Serializer>(&self, to: S) -> ::std::result::Result<S::Ok, S::Error> {
                to.serialize_str(self.name())
            }
        }

        impl<'de> ::serde::Deserialize<'de> for $type {
            fn deserialize<D: ::serde::Deserializer<'de>>(from: D) -> ::std::result::Result<Self, D::Error> {
                let text = <String as ::serde::Deserialize>::deserialize(from)?;
                text.parse().map_err(|_| ::serde::de::Error::unknown_variant(&text, Self::NAMES))
            }
        }
    };
}

/// Serde for a type as the text that its `Display` writes and its `FromStr` reads.
macro_rules! serde_as_text {
    ($type:ident) => {
        impl ::serde::Serialize for $type {
            fn serialize<S: ::serde::Serializer>(&self, to: S) -> ::std::result::Result<S::Ok, S::Error> {
                to.collect_str(self)
            }
        }

        impl<'de> ::serde::Deserialize<'de> for $type {
            fn deserialize<D: ::serde::Deserializer<'de>>(from: D) -> ::std::result::Result<Self, D::Error> {
                let text = <String as ::serde::Deserialize>::deserialize(from)?;
                text.parse().map_err(::serde::de::Error::custom)
            }
        }
    };
}

pub(crate) use named;
pub(super) use serde_as_text;

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    named! {
        /// Two sides.
        enum Side { /// One.
            Left = "left", /// The other.
            RightHand = "right-hand" }
    }

    #[test]
    fn a_name_reads_back() {
        assert_eq!(Side::NAMES, ["left", "right-hand"]);
        for &side in Side::ALL {
            assert_eq!(side.to_string().parse(), Ok(side));
            assert_eq!(serde_json::from_str::<Side>(&serde_json::to_string(&side).unwrap()).unwrap(), side);
        }
        assert_eq!(Side::RightHand.name(), "right-hand");
        assert_eq!("up".parse::<Side>().unwrap_err(), "one of left, right-hand is wanted, got `up`");
        let error = serde_json::from_str::<Side>("\"up\"").unwrap_err().to_string();
        assert!(error.contains("unknown variant `up`, expected `left` or `right-hand`"), "{error}");
    }
}
