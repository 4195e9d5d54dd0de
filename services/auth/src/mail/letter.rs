//! What mails say: English, plain text and simple HTML.
//!
//! No mail carries anything that a user has written but its own address: whoever registers with the address of another
//! cannot have us send that person a message. Only who has confirmed an address, and follows somebody, reads that one's name
//! and title there, on one line each.

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
    subject: String,
    /// What has happened, and what to do.
    says: String,
    link: Option<Link>,
    /// What to do if the reader did not cause it, or wants no more of them.
    otherwise: String,
    /// The page where the reader can end such mails.
    end_page: Option<String>,
}

struct Link {
    /// The page of the web client.
    page: String,
    label: &'static str,
    /// What it needs to be of use; none for a page that everybody can open.
    token: Option<String>,
}

/// The mail as it is sent. Fails when its address cannot stand in a mail.
pub(crate) fn compose(mail: &Mail, links: &Links, from: &Mailbox, public_url: &Origin) -> anyhow::Result<Message> {
    let letter = letter(mail, links)?;
    let message_id = format!("<{}@{}>", mail.mail_id, from.email.domain());
    let mut message = Message::builder();
    if let Some(page) = &letter.end_page {
        message = message.raw_header(header("List-Unsubscribe", format!("<{public_url}/{page}>")));
    }
    Ok(message
        .from(from.clone())
        .to(Mailbox::new(None, mail.to.parse().context("the address is none")?))
        .subject(letter.subject.clone())
        .date(SystemTime::from(mail.created_at))
        // The same each time that it is sent, so that a mailbox can tell a repetition.
        .message_id(Some(message_id))
        // No automatic answers (RFC 3834).
        .raw_header(header("Auto-Submitted", "auto-generated".to_owned()))
        .multipart(MultiPart::alternative_plain_html(letter.text(public_url), letter.html(public_url)))?)
}

fn header(name: &'static str, value: String) -> HeaderValue {
    HeaderValue::new(HeaderName::new_from_ascii_str(name), value)
}

fn letter(mail: &Mail, links: &Links) -> anyhow::Result<Letter> {
    let link = |page: &str, label| {
        let token = Some(links.token(mail.purpose, mail.mail_id));
        Some(Link { page: page.to_owned(), label, token })
    };
    let letter = |subject: &str, says: String, link, otherwise: &str| Letter {
        subject: subject.to_owned(),
        says,
        link,
        otherwise: otherwise.to_owned(),
        end_page: None,
    };
    Ok(match mail.purpose {
        Purpose::ResetPassword => letter(
            "Set a new password",
            format!(
                "A new password was asked for, for the account of {}. The link below sets it. It counts once, for one hour.",
                mail.to
            ),
            link("reset-password", "Set a new password"),
            "If it was not you, do nothing: the password stays as it is.",
        ),
        Purpose::VerifyEmail => letter(
            "Confirm your e-mail address",
            format!(
                "An account was made with the address {}. The link below confirms that it is yours. It counts for three days.",
                mail.to
            ),
            link("verify-email", "Confirm the address"),
            "If it was not you, do nothing: the address stays unconfirmed.",
        ),
        Purpose::ChangeEmail => letter(
            "Confirm your new e-mail address",
            format!(
                "The owner of an account wants to use the address {} from now on. The link below confirms it. It counts for \
                 three days.",
                mail.to
            ),
            link("verify-email", "Confirm the address"),
            "If it was not you, do nothing: nothing changes.",
        ),
        Purpose::EmailChangeRequested => letter(
            "Your e-mail address is about to change",
            format!(
                "The account of {} is to use another e-mail address. It will, as soon as the other address is confirmed.",
                mail.to
            ),
            None,
            "If it was not you, change your password now: somebody else knows it.",
        ),
        Purpose::PasswordChanged => letter(
            "Your password was changed",
            format!("The password of the account of {} was changed.", mail.to),
            None,
            "If it was not you, ask for a new password now: somebody else can log in.",
        ),
        Purpose::Invitation => letter(
            "You are invited",
            format!("You can register with the address {}. The link below leads there. It counts once.", mail.to),
            link("register", "Register"),
            "If you do not want to, do nothing.",
        ),
        Purpose::StreamLive => {
            let about = mail.about.as_ref().context("it does not say of which stream")?;
            let channel = one_line(&about.channel_name);
            let title = match one_line(&about.title) {
                title if title.is_empty() => String::new(),
                title => format!(": {title}"),
            };
            let channel_page = format!("channels/{}", about.channel_id);
            let stream_page = format!("watch/{}", about.playback_id);
            Letter {
                subject: format!("{channel} is live"),
                says: format!("{channel} is live{title}"),
                link: Some(Link { page: stream_page, label: "Watch", token: None }),
                otherwise: format!(
                    "You get this because you follow {channel}. To get no more of these, unfollow there, or choose not to be \
                     told by mail:"
                ),
                end_page: Some(channel_page),
            }
        }
    })
}

/// What a user has written, without what could make it look like more than a name or a title.
fn one_line(text: &str) -> String {
    let text: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

impl Letter {
    fn text(&self, public_url: &Origin) -> String {
        let mut text = format!("Hello,\n\n{}\n\n", self.says);
        // Writing into a String does not fail.
        if let Some(link) = &self.link {
            let _ = write!(text, "{}\n\n", link.url(public_url));
            if let Some(token) = &link.token {
                let _ = write!(text, "Or with this token:\n\n{token}\n\n");
            }
        }
        let _ = writeln!(text, "{}", self.otherwise);
        if let Some(page) = &self.end_page {
            let _ = writeln!(text, "{public_url}/{page}");
        }
        text
    }

    fn html(&self, public_url: &Origin) -> String {
        let mut html =
            format!("<!doctype html>\n<html lang=\"en\"><body>\n<p>Hello,</p>\n<p>{}</p>\n", escape(&self.says));
        if let Some(link) = &self.link {
            let _ = writeln!(html, "<p><a href=\"{}\">{}</a></p>", escape(&link.url(public_url)), link.label);
            if let Some(token) = &link.token {
                let _ = writeln!(html, "<p>Or with this token: <code>{token}</code></p>");
            }
        }
        let _ = write!(html, "<p>{}", escape(&self.otherwise));
        if let Some(page) = &self.end_page {
            let address = escape(&format!("{public_url}/{page}"));
            let _ = write!(html, " <a href=\"{address}\">{address}</a>");
        }
        html + "</p>\n</body></html>\n"
    }
}

impl Link {
    /// The token stands in the fragment, which browsers send to no server, so that no log has it.
    fn url(&self, public_url: &Origin) -> String {
        match &self.token {
            Some(token) => format!("{public_url}/{}#token={token}", self.page),
            None => format!("{public_url}/{}", self.page),
        }
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use chassis::env::Value as _;
    use chrono::DateTime;
    use common::{Secret, UserId};
    use uuid::Uuid;

    use super::*;
    use crate::mail::About;

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
    fn a_name_and_a_title_stay_on_their_line_and_are_no_markup() {
        let about = About {
            channel_id: UserId(Uuid::nil()),
            channel_name: "Ana\r\nBcc: ben@example.org".to_owned(),
            playback_id: Uuid::nil(),
            title: "<a href=\"https://evil.example\">Look</a>\n\nhere".to_owned(),
        };
        let mail =
            Mail { about: Some(about), ..Mail::new(Purpose::StreamLive, "c@example.org", None, DateTime::UNIX_EPOCH) };
        let links = Links::new(&Secret::new("a secret")).unwrap();
        let from = "Amphi <amphi@example.org>".parse().unwrap();
        let url = Origin::parse("https://meet.example.org").unwrap();

        let text = String::from_utf8(compose(&mail, &links, &from, &url).unwrap().formatted()).unwrap();

        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.contains("Subject: Ana Bcc: ben@example.org is live") && !head.contains("\nBcc"), "{head}");
        let channel = "https://meet.example.org/channels/00000000-0000-0000-0000-000000000000";
        assert!(head.contains(&format!("List-Unsubscribe: <{channel}>")), "{head}");
        let body = body.replace("=\r\n", "").replace("=3D", "=");
        assert!(!body.contains("#token") && body.contains("https://meet.example.org/watch/00000000"), "{body}");
        assert!(body.contains("&lt;a href=&quot;https://evil.example&quot;&gt;Look&lt;/a&gt; here"), "{body}");
        assert_eq!(body.matches(channel).count(), 3, "as text, and as HTML with its address: {body}");
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
