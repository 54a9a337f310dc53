//! Text to HTML that is safe whatever the text is, and the pieces that a page without network has.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};

/// `text` as the content of an element or of a quoted attribute. Control characters, which HTML does not allow, and
/// marks that turn the direction of text become visible escapes.
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out += "&amp;",
            '<' => out += "&lt;",
            '>' => out += "&gt;",
            '"' => out += "&quot;",
            '\'' => out += "&#39;",
            '\n' | '\t' => out.push(c),
            '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => out.extend(c.escape_unicode()),
            c if c.is_control() => out.extend(c.escape_default()),
            c => out.push(c),
        }
    }
    out
}

/// A JSON document as the content of a `script` element that is not executed: nothing in it can end the element.
pub fn json(value: &serde_json::Value) -> String {
    value.to_string().replace('<', "\\u003c").replace('\u{2028}', "\\u2028").replace('\u{2029}', "\\u2029")
}

/// The template with `{{name}}` replaced by the text of that name. What is put in is not looked at again; a name without
/// text stays.
pub fn fill(template: &str, texts: &[(&str, &str)]) -> String {
    let mut out = String::with_capacity(template.len());
    let mut rest = template;
    while let Some((before, from)) = rest.split_once("{{") {
        out += before;
        let found = from.split_once("}}").and_then(|(name, after)| {
            let (_, text) = texts.iter().find(|(known, _)| *known == name)?;
            Some((text, after))
        });
        match found {
            Some((text, after)) => {
                out += text;
                rest = after;
            }
            None => {
                out += "{{";
                rest = from;
            }
        }
    }
    out + rest
}

/// A PNG file as an address that holds it.
pub fn data_address(png: &[u8]) -> String {
    format!("data:image/png;base64,{}", STANDARD.encode(png))
}

/// The source of a content security policy that allows exactly this inline script or style.
pub fn allowed(content: &str) -> String {
    format!("'sha256-{}'", STANDARD.encode(Sha256::digest(content.as_bytes())))
}

/// A number for people: four significant digits, no needless zeros.
pub fn number(value: f64) -> String {
    if value == 0.0 {
        return "0".into();
    }
    if !value.is_finite() {
        return value.to_string();
    }
    let places = (3 - value.abs().log10().floor() as i32).clamp(0, 8) as usize;
    let text = format!("{value:.places$}");
    match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_stays_text() {
        assert_eq!(escape("<script>alert('x')</script>"), "&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;");
        assert_eq!(escape("a\u{1b}[31m\u{202e}\"&"), "a\\u{1b}[31m\\u{202e}&quot;&amp;");
        assert_eq!(json(&serde_json::json!(["</script>\u{2028}"])), "[\"\\u003c/script>\\u2028\"]");
        assert_eq!(fill("{{a}} {{b}} {{c}}", &[("a", "{{b}}"), ("b", "2")]), "{{b}} 2 {{c}}");
    }

    #[test]
    fn a_policy_names_the_content() {
        // echo -n 'alert(1)' | openssl dgst -sha256 -binary | base64
        assert_eq!(allowed("alert(1)"), "'sha256-bhHHL3z2vDgxUt0W3dWQOrprscmda2Y5pLsLg4GF+pI='");
        assert_eq!(data_address(b"abc"), "data:image/png;base64,YWJj");
    }

    #[test]
    fn numbers_are_short() {
        for (value, text) in
            [(0.05, "0.05"), (1234.5, "1234"), (3.14159, "3.142"), (0.0, "0"), (1e-7, "0.0000001"), (100.0, "100")]
        {
            assert_eq!(number(value), text);
        }
    }
}
