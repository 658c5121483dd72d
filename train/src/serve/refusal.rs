//! `Refusal`: why a request gets no answer, in the form that clients of OpenAI's interface read.

use axum::body::Body;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

/// Why a request gets no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The status.
    pub status: StatusCode,
    /// What was found, what was expected, what to do.
    pub message: String,
    /// The field of the request.
    pub field: Option<String>,
    /// A word for programs.
    pub code: &'static str,
}

impl Refusal {
    /// A field that is not what it should be.
    pub fn field(
        field: impl Into<String>,
        found: impl std::fmt::Display,
        expected: impl std::fmt::Display,
    ) -> Self {
        let field = field.into();
        Self {
            status: StatusCode::BAD_REQUEST,
            message: format!("{field}: found {found}, expected {expected}"),
            field: Some(field),
            code: "invalid_value",
        }
    }

    /// A request that is refused as a whole.
    pub fn whole(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self {
            status,
            message: message.into(),
            field: None,
            code,
        }
    }

    /// The kind of error that clients know.
    fn kind(&self) -> &'static str {
        match self.status.as_u16() {
            401 => "authentication_error",
            404 => "not_found_error",
            429 => "rate_limit_error",
            500.. => "server_error",
            _ => "invalid_request_error",
        }
    }

    /// As JSON.
    pub fn json(&self) -> Value {
        json!({ "error": {
            "message": self.message, "type": self.kind(), "param": self.field, "code": self.code,
        } })
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let response = Response::builder()
            .status(self.status)
            .header(header::CONTENT_TYPE, "application/json");
        let response = match self.status {
            StatusCode::TOO_MANY_REQUESTS => response.header(header::RETRY_AFTER, "1"),
            StatusCode::UNAUTHORIZED => response.header(header::WWW_AUTHENTICATE, "Bearer"),
            _ => response,
        };
        let body = Body::from(self.json().to_string());
        response.body(body).expect("headers that are valid")
    }
}

/// A value in a message.
pub fn shown(value: &Value) -> String {
    let kind = match value {
        Value::Array(items) => format!("a list of {}", items.len()),
        Value::Object(_) => "an object".to_string(),
        value => crate::text::beginning(&value.to_string(), 60),
    };
    crate::escape::terminal(&kind)
}
