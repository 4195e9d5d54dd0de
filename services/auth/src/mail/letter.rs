//! What mails say: English, plain text and simple HTML.
//!
//! No mail carries anything that a user has written but its own address: whoever registers with the address of another
//! cannot have us send that person a message.

use std::fmt::Write as _;
use std::time::SystemTime;

use anyhow::Context as _;
use chassis::env::Origin;
use lettre::Message;
use lettre::message::header::{HeaderName, HeaderValue};
use lettre::message::{Mailbox, MultiPart};

use crate::mail::links::Links;
use crate::mail::{Mail, Purpose};

/// What a mail says.
struct Letter {
    subject: &'static str,
    /// What has happened, and what to do.
    says: String,
    link: Option<Link>,
    /// What to do if the reader did not cause it.
    otherwise: &'static str,
}

struct Link {
    /// The page of the web client.
    page: &'static str,
    label: &'static str,
    token: String,
}

/// The mail as it is sent. Fails when its address cannot stand in a mail.
pub(crate) fn compose(mail: &Mail, links: &Links, from: &Mailbox, public_url: &Origin) -> anyhow::Result<Message> {
    let letter = letter(mail, links);
    let message_id = format!("<{}@{}>", mail.mail_id, from.email.domain());
    Ok(Message::builder()
        .from(from.clone())
        .to(Mailbox::new(None, mail.to.parse().context("the address is none")?))
        .subject(letter.subject)
        .date(SystemTime::from(mail.created_at))
        // The same each time that it is sent, so that a mailbox can tell a repetition.
        .message_id(Some(message_id))
        .raw_header(HeaderValue::new(
            // No automatic answers (RFC 3834).
            HeaderName::new_from_ascii_str("Auto-Submitted"),
            "auto-generated".to_owned(),
        ))
        .multipart(MultiPart::alternative_plain_html(letter.text(public_url), letter.html(public_url)))?)
}

fn letter(mail: &Mail, links: &Links) -> Letter {
    let link = |page, label| Some(Link { page, label, token: links.token(mail.purpose, mail.mail_id) });
    match mail.purpose {
        Purpose::ResetPassword => Letter {
            subject: "Set a new password",
            says: format!(
                "A new password was asked for, for the account of {}. The link below sets it. It counts once, for one hour.",
                mail.to
            ),
            link: link("reset-password", "Set a new password"),
            otherwise: "If it was not you, do nothing: the password stays as it is.",
        },
        Purpose::VerifyEmail => Letter {
            subject: "Confirm your e-mail address",
            says: format!(
                "An account was made with the address {}. The link below confirms that it is yours. It counts for three days.",
                mail.to
            ),
            link: link("verify-email", "Confirm the address"),
            otherwise: "If it was not you, do nothing: the address stays unconfirmed.",
        },
        Purpose::ChangeEmail => Letter {
            subject: "Confirm your new e-mail address",
            says: format!(
                "The owner of an account wants to use the address {} from now on. The link below confirms it. It counts for \
                 three days.",
                mail.to
            ),
            link: link("verify-email", "Confirm the address"),
            otherwise: "If it was not you, do nothing: nothing changes.",
        },
        Purpose::EmailChangeRequested => Letter {
            subject: "Your e-mail address is about to change",
            says: format!(
                "The account of {} is to use another e-mail address. It will, as soon as the other address is confirmed.",
                mail.to
            ),
            link: None,
            otherwise: "If it was not you, change your password now: somebody else knows it.",
        },
        Purpose::PasswordChanged => Letter {
            subject: "Your password was changed",
            says: format!("The password of the account of {} was changed.", mail.to),
            link: None,
            otherwise: "If it was not you, ask for a new password now: somebody else can log in.",
        },
        Purpose::Invitation => Letter {
            subject: "You are invited",
            says: format!("You can register with the address {}. The link below leads there. It counts once.", mail.to),
            link: link("register", "Register"),
            otherwise: "If you do not want to, do nothing.",
        },
    }
}

impl Letter {
    fn text(&self, public_url: &Origin) -> String {
        let mut text = format!("Hello,\n\n{}\n\n", self.says);
        if let Some(link) = &self.link {
            // Writing into a String does not fail.
            let _ = write!(text, "{}\n\nOr with this token:\n\n{}\n\n", link.url(public_url), link.token);
        }
        text + self.otherwise + "\n"
    }

    fn html(&self, public_url: &Origin) -> String {
        let mut html =
            format!("<!doctype html>\n<html lang=\"en\"><body>\n<p>Hello,</p>\n<p>{}</p>\n", escape(&self.says));
        if let Some(link) = &self.link {
            let _ = write!(
                html,
                "<p><a href=\"{}\">{}</a></p>\n<p>Or with this token: <code>{}</code></p>\n",
                escape(&link.url(public_url)),
                link.label,
                link.token
            );
        }
        html + &format!("<p>{}</p>\n</body></html>\n", escape(self.otherwise))
    }
}

impl Link {
    /// The token stands in the fragment, which browsers send to no server, so that no log has it.
    fn url(&self, public_url: &Origin) -> String {
        format!("{public_url}/{}#token={}", self.page, self.token)
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use chassis::env::Value as _;
    use chrono::DateTime;
    use common::Secret;

    use super::*;

    fn composed(to: &str) -> anyhow::Result<String> {
        let mail = Mail::new(Purpose::ResetPassword, to, None, DateTime::UNIX_EPOCH);
        let links = Links::new(&Secret::new("a secret"))?;
        let from = "Amphi <amphi@example.org>".parse()?;
        let url = Origin::parse("https://meet.example.org").unwrap();
        Ok(String::from_utf8(compose(&mail, &links, &from, &url)?.formatted())?)
    }

    #[test]
    fn a_letter_says_what_it_is_for_and_where_it_leads() {
        let text = composed("ana@example.org").unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        for header in ["From: ", "To: ana@example.org", "Subject: Set a new password", "Auto-Submitted: auto-generated"]
        {
            assert!(head.lines().any(|line| line.starts_with(header)), "{header} in {head}");
        }
        assert!(head.contains("Date: Thu, 01 Jan 1970 00:00:00 +0000"), "{head}");
        // Quoted-printable writes `=` as `=3D` and breaks long lines with `=`.
        let body = body.replace("=\r\n", "").replace("=3D", "=");
        assert!(body.contains("https://meet.example.org/reset-password#token="), "{body}");
    }

    #[test]
    fn an_address_cannot_add_a_header_or_another_reader() {
        for evil in
            ["ana@example.org\r\nBcc: ben@example.org", "ana@example.org, ben@example.org", "a<ben@example.org>"]
        {
            let text = composed(evil);
            assert!(text.is_err(), "{evil:?} made {text:?}");
        }
    }
}
