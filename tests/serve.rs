//! Tests of `nerve serve` over plain connections: what it answers is what the program says elsewhere, does not depend on other
//! requests, and whatever comes is answered.

use crate::support::{Finished, Workplace};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// A server that is killed when it is dropped.
pub struct Server {
    process: Child,
    address: String,
}

impl Server {
    pub fn start(workplace: &Workplace, flags: &str) -> Self {
        let mut command = workplace.command(&format!("serve {flags} --port 0"));
        command.env("RAYON_NUM_THREADS", "2");
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut process = command.spawn().unwrap();
        let mut line = String::new();
        let stdout = process.stdout.take().unwrap();
        BufReader::new(stdout).read_line(&mut line).unwrap();
        let address = line.trim().strip_prefix("http://").map(str::to_string);
        let Some(address) = address else {
            let output = process.wait_with_output().unwrap();
            panic!("{line:?}: {}", Finished::from(output).stderr)
        };
        Self { process, address }
    }

    /// Sends a request as it stands and reads the answer to its end: status, headers and body.
    fn raw(&self, request: &[u8]) -> (u16, String, Vec<u8>) {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        // A server may answer, and close, before it has read everything.
        let _ = stream.write_all(request);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        let end = answer.windows(4).position(|four| four == b"\r\n\r\n");
        let end = end.unwrap_or_else(|| panic!("{}", String::from_utf8_lossy(&answer)));
        let head = String::from_utf8(answer[..end].to_vec()).unwrap();
        let status = head[9..12].parse().unwrap();
        let body = answer.split_off(end + 4);
        let is_chunked = head.contains("transfer-encoding: chunked");
        let body = if is_chunked { unchunked(&body) } else { body };
        (status, head, body)
    }

    fn ask(&self, method: &str, path: &str, body: &str) -> (u16, Value) {
        let request = request(method, path, body, "");
        let (status, _, body) = self.raw(request.as_bytes());
        let text = String::from_utf8(body).unwrap();
        (
            status,
            serde_json::from_str(&text).unwrap_or(Value::String(text)),
        )
    }

    /// The choices of a completion.
    pub fn complete(&self, request: &Value) -> Value {
        let (status, mut answer) = self.ask("POST", "/v1/completions", &request.to_string());
        assert_eq!(status, 200, "{answer}");
        answer["choices"].take()
    }

    fn refused(&self, request: &Value) -> (u16, Value) {
        let (status, mut answer) = self.ask("POST", "/v1/completions", &request.to_string());
        (status, answer["error"].take())
    }

    /// Waits until a counter has a value.
    fn wait_for(&self, metric: &str) {
        let began = Instant::now();
        let is_there = || {
            let (_, text) = self.ask("GET", "/metrics", "");
            text.as_str().unwrap().lines().any(|line| line == metric)
        };
        while !is_there() {
            assert!(began.elapsed() < Duration::from_secs(20), "no {metric}");
            thread::sleep(Duration::from_millis(10));
        }
    }

    fn signal(&self, signal: i32) {
        let kill = format!("kill -{signal} {}", self.process.id());
        let sent = Command::new("sh").args(["-c", &kill]).status().unwrap();
        assert!(sent.success());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn request(method: &str, path: &str, body: &str, headers: &str) -> String {
    let length = body.len();
    format!(
        "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {length}\r\n{headers}\r\n{body}"
    )
}

fn unchunked(mut body: &[u8]) -> Vec<u8> {
    let mut whole = Vec::new();
    while let Some(end) = body.windows(2).position(|two| two == b"\r\n") {
        let size = std::str::from_utf8(&body[..end]).unwrap();
        let size = usize::from_str_radix(size, 16).unwrap();
        whole.extend(&body[end + 2..][..size]);
        body = &body[end + 2 + size + 2..];
    }
    whole
}

/// The data of events.
fn events(body: &[u8]) -> Vec<String> {
    let text = std::str::from_utf8(body).unwrap();
    let events = text.split_terminator("\n\n");
    events
        .map(|event| event.strip_prefix("data: ").unwrap().to_string())
        .collect()
}

#[test]
fn every_model_says_over_http_what_it_says_on_the_command_line() {
    let workplace = Workplace::with_older_runs();
    for run in ["ladder", "routed", "brillm", "graph"] {
        let server = Server::start(&workplace, run);
        for temperature in ["0", "1.5"] {
            // The draws of a graph are keyed otherwise.
            if temperature != "0" && ["brillm", "graph"].contains(&run) {
                continue;
            }
            let line = format!(
                "sample {run} --prompt Once --tokens 20 --temperature {temperature} --top-k 90 --seed 3 --n 2 --json"
            );
            let sampled = workplace.nerve(&line).expect(0).json();
            let request = json!({
                "prompt": "Once", "max_tokens": 20, "temperature": temperature.parse::<f64>().unwrap(),
                "top_k": 90, "seed": 3, "n": 2,
            });
            let choices = server.complete(&request);
            for (index, sample) in sampled["samples"].as_array().unwrap().iter().enumerate() {
                let of = |name| sample[name].as_str().unwrap();
                let is_end = of("stop_reason") == "end";
                assert_eq!(choices[index]["text"], of("text"), "{run}");
                let expected = if is_end { "stop" } else { "length" };
                assert_eq!(choices[index]["finish_reason"], expected, "{run}");
            }
        }
        let (status, models) = server.ask("GET", "/v1/models", "");
        assert_eq!((status, models["data"][0]["id"].as_str()), (200, Some(run)));
    }
}

#[test]
fn what_is_said_of_a_prompt_is_its_loss_in_evaluation() {
    let workplace = Workplace::with_older_runs();
    let text = "Once upon a time";
    let line = json!({ "text": text, "task": "one", "difficulty": 0 });
    workplace.write("text.jsonl", format!("{line}\n"));
    let prepare =
        "data prepare text.jsonl --output split --tokenizer data/tokenizer.json --valid 0";
    workplace.nerve(prepare).expect(0);
    for run in ["routed", "graph"] {
        let evaluated = workplace.nerve(&format!("eval {run} --data split/train.bin --json"));
        let evaluated = evaluated.expect(0).json();
        let split = &evaluated["splits"][0];
        let targets = split["targets"].as_f64().unwrap();
        let total = split["loss/lm"].as_f64().unwrap() * targets;
        let server = Server::start(&workplace, run);
        // Bytes between the symbols that begin and end a document.
        let ids = [
            &[256],
            text.as_bytes()
                .iter()
                .map(|&byte| u32::from(byte))
                .collect::<Vec<_>>()
                .as_slice(),
            &[257],
        ]
        .concat();
        let request = json!({ "prompt": ids, "max_tokens": 0, "echo": true, "logprobs": 1 });
        let choice = server.complete(&request)[0].take();
        assert_eq!(choice["text"], text);
        let logprobs = &choice["logprobs"];
        let lns = logprobs["token_logprobs"].as_array().unwrap();
        assert!(lns[0].is_null() && lns.len() == targets as usize + 1);
        let lns: Vec<f64> = lns[1..].iter().map(|ln| ln.as_f64().unwrap()).collect();
        let sum = -lns.iter().sum::<f64>();
        assert!((total - sum).abs() < 1e-4, "{run}: {total} and {sum}");
        for (place, ln) in (1..).zip(&lns) {
            let likeliest = logprobs["top_logprobs"][place].as_object().unwrap();
            // Its own, and one that is likelier or itself.
            let own = &likeliest[logprobs["tokens"][place].as_str().unwrap()];
            assert_eq!(own.as_f64(), Some(*ln));
            let others = likeliest.values().map(|ln| ln.as_f64().unwrap());
            assert!(likeliest.len() <= 2 && others.fold(f64::MIN, f64::max) >= *ln);
        }
        assert_eq!(logprobs["text_offset"][3], 2);
    }
}

/// Requests of many kinds and lengths.
fn many_requests() -> Vec<Value> {
    let texts = [
        "Once",
        "The cat",
        "a",
        "Once upon a time there was a dog and",
        "He said",
    ];
    let temperatures = [0.0, 0.8, 1.6];
    (0..40)
        .map(|index| {
            let mut request = json!({
                "prompt": texts[index % texts.len()], "max_tokens": index * 7 % 23,
                "temperature": temperatures[index % 3], "seed": index, "top_p": 0.95, "logprobs": index % 4,
                "echo": index % 2 == 0, "return_routes": index % 5 == 0, "ignore_eos": index % 7 == 0,
            });
            if index % 6 == 0 {
                request["stop"] = json!(["e", " the"]);
            }
            request
        })
        .collect()
}

#[test]
fn answers_do_not_depend_on_neighbours_to_the_bit() {
    let workplace = Workplace::with_older_runs();
    for run in ["ladder", "routed", "brillm"] {
        let server = Server::start(&workplace, &format!("{run} --slots 12"));
        let requests = many_requests();
        let alone: Vec<Value> = requests.iter().map(|it| server.complete(it)).collect();
        let server = &server;
        thread::scope(|scope| {
            let ask = |request| scope.spawn(move || server.complete(request));
            let others: Vec<_> = requests.iter().map(ask).collect();
            for ((request, expected), found) in requests.iter().zip(&alone).zip(others) {
                assert_eq!(&found.join().unwrap(), expected, "{run}: {request}");
            }
        });
        // Several prompts in one request are the same too.
        let several = json!({ "prompt": ["Once", "The cat"], "n": 2, "seed": 7, "max_tokens": 5 });
        let several = server.complete(&several);
        for (index, prompt) in [(0, "Once"), (2, "The cat")] {
            let one = json!({ "prompt": prompt, "seed": 7, "max_tokens": 5 });
            assert_eq!(several[index]["text"], server.complete(&one)[0]["text"]);
            assert_eq!(several[index]["index"], index);
        }
        let routed = json!({ "prompt": "Once", "max_tokens": 3, "echo": true, "return_routes": true, "ignore_eos": true });
        let choice = &server.complete(&routed)[0];
        let routes = choice["routes"].as_array().unwrap();
        assert!(routes[0].is_null() && routes[1].is_array(), "{choice}");
        let (energies, n) = (choice["energies"].as_array(), routes.len());
        assert_eq!(energies.map(Vec::len), (run == "brillm").then_some(n));
    }
}

#[test]
fn a_stream_says_the_same_in_pieces_and_a_string_ends_it() {
    let workplace = Workplace::with_older_runs();
    let server = Server::start(&workplace, "ladder");
    for index in 0..12 {
        let mut request = json!({
            "prompt": ["Once", "The"], "max_tokens": 12, "seed": index, "logprobs": 2, "echo": index % 2 == 0,
            "temperature": 1.4, "ignore_eos": true,
        });
        if index % 3 > 0 {
            request["stop"] = json!(["e", " a"]);
        }
        let whole = server.complete(&request);
        request["stream"] = json!(true);
        request["stream_options"] = json!({ "include_usage": true });
        let sent = self::request("POST", "/v1/completions", &request.to_string(), "");
        let (status, head, body) = server.raw(sent.as_bytes());
        assert!(
            status == 200 && head.contains("text/event-stream"),
            "{head}"
        );
        let mut events = events(&body);
        assert_eq!(events.pop().unwrap(), "[DONE]");
        let usage: Value = serde_json::from_str(&events.pop().unwrap()).unwrap();
        let (mut texts, mut lns) = ([const { String::new() }; 2], [vec![], vec![]]);
        let mut finishes = [Value::Null, Value::Null];
        for event in events {
            let event: Value = serde_json::from_str(&event).unwrap();
            let choice = &event["choices"][0];
            let of = choice["index"].as_u64().unwrap() as usize;
            texts[of] += choice["text"].as_str().unwrap();
            lns[of].extend(
                choice["logprobs"]["token_logprobs"]
                    .as_array()
                    .unwrap()
                    .clone(),
            );
            if !choice["finish_reason"].is_null() {
                finishes[of] = choice["finish_reason"].clone();
            }
        }
        for of in 0..2 {
            assert_eq!(whole[of]["text"], texts[of]);
            assert_eq!(whole[of]["logprobs"]["token_logprobs"], json!(lns[of]));
            assert_eq!(whole[of]["finish_reason"], finishes[of]);
            let prompt = if index % 2 == 0 {
                ["Once", "The"][of]
            } else {
                ""
            };
            let shown = texts[of].strip_prefix(prompt).unwrap();
            if index % 3 > 0 {
                assert!(!shown.contains('e') && !shown.contains(" a"), "{shown}");
            }
        }
        assert_eq!(usage["choices"], json!([]));
        assert!(usage["usage"]["completion_tokens"].as_u64().unwrap() <= 24);
    }
    // Up to the string, not with it.
    let without =
        json!({ "prompt": "Once", "max_tokens": 12, "temperature": 0, "ignore_eos": true });
    let text = server.complete(&without)[0]["text"]
        .as_str()
        .unwrap()
        .to_string();
    let middle: String = text.chars().skip(3).take(2).collect();
    let mut with = without.clone();
    with["stop"] = json!(middle);
    let choice = &server.complete(&with)[0];
    assert_eq!(choice["text"].as_str(), text.split(&middle).next());
    assert_eq!(choice["finish_reason"], "stop");
}

#[test]
fn what_is_wrong_with_a_request_is_said_by_its_field() {
    let workplace = Workplace::with_older_runs();
    let server = Server::start(&workplace, "ladder");
    let long = "a ".repeat(500);
    let wrong: [(Value, &str); 31] = [
        (json!({}), "prompt"),
        (json!({ "prompt": 7 }), "prompt"),
        (json!({ "prompt": [] }), "prompt"),
        (json!({ "prompt": {} }), "prompt"),
        (json!({ "prompt": [[]] }), "prompt[0]"),
        (json!({ "prompt": ["a", 1] }), "prompt[1]"),
        (json!({ "prompt": [[1], "a"] }), "prompt[1]"),
        (json!({ "prompt": [1, 2.5] }), "prompt[1]"),
        (json!({ "prompt": [1, -1] }), "prompt[1]"),
        (json!({ "prompt": [1, 100000] }), "prompt[1]"),
        (json!({ "prompt": [[1], [1u64 << 40]] }), "prompt[1][0]"),
        (json!({ "prompt": long }), "prompt"),
        (json!({ "prompt": vec!["a"; 300] }), "prompt"),
        (json!({ "prompt": "a", "n": 0 }), "n"),
        (json!({ "prompt": "a", "n": 1000 }), "n"),
        (json!({ "prompt": "a", "max_tokens": -1 }), "max_tokens"),
        (json!({ "prompt": "a", "max_tokens": "many" }), "max_tokens"),
        (json!({ "prompt": "a", "temperature": -0.5 }), "temperature"),
        (
            json!({ "prompt": "a", "temperature": "hot" }),
            "temperature",
        ),
        (json!({ "prompt": "a", "top_p": 0 }), "top_p"),
        (json!({ "prompt": "a", "top_k": -2 }), "top_k"),
        (json!({ "prompt": "a", "seed": 0.5 }), "seed"),
        (json!({ "prompt": "a", "stop": [""] }), "stop"),
        (json!({ "prompt": "a", "stop": 3 }), "stop"),
        (json!({ "prompt": "a", "logprobs": 100 }), "logprobs"),
        (json!({ "prompt": "a", "echo": 1 }), "echo"),
        (
            json!({ "prompt": "a", "stream_options": {} }),
            "stream_options",
        ),
        (
            json!({ "prompt": "a", "presence_penalty": 0.5 }),
            "presence_penalty",
        ),
        (
            json!({ "prompt": "a", "logit_bias": { "3": 1 } }),
            "logit_bias",
        ),
        (json!({ "prompt": "a", "heat": 1 }), "heat"),
        (json!({ "prompt": "a", "suffix": "b" }), "suffix"),
    ];
    for (request, field) in wrong {
        let (status, error) = server.refused(&request);
        assert_eq!(
            (status, error["param"].as_str()),
            (400, Some(field)),
            "{error}"
        );
        assert_eq!(error["type"], "invalid_request_error");
        let message = error["message"].as_str().unwrap();
        assert!(
            message.starts_with(&format!("{field}: found ")),
            "{message}"
        );
    }
    let (status, error) = server.refused(&json!({ "prompt": "a", "model": "another" }));
    assert_eq!(
        (status, error["code"].as_str()),
        (404, Some("model_not_found"))
    );
    // What asks for nothing is taken.
    let neutral = json!({
        "prompt": "a", "model": "ladder", "presence_penalty": 0, "frequency_penalty": 0.0, "logit_bias": {}, "suffix": null,
        "best_of": 1, "user": "me", "stop": null, "logprobs": false, "max_tokens": 1,
    });
    server.complete(&neutral);
    // A full context ends a text.
    let full = json!({ "prompt": "a", "max_tokens": 1_000_000_000, "ignore_eos": true });
    assert_eq!(server.complete(&full)[0]["finish_reason"], "length");
    for (path, method, status) in [
        ("/", "GET", 404),
        ("/v1/completions", "GET", 405),
        ("/v1/chat/completions", "POST", 404),
        ("/../../etc/passwd", "GET", 404),
        ("/health", "GET", 200),
    ] {
        assert_eq!(server.ask(method, path, "").0, status, "{path}");
    }
    let deep = "[".repeat(100_000);
    for body in [
        "",
        "{",
        "[1]",
        "null",
        "\"a\"",
        "{\"prompt\":\"a\"}x",
        &deep,
        "\u{0}",
    ] {
        let (status, answer) = server.ask("POST", "/v1/completions", body);
        assert_eq!(
            (status, answer["error"]["code"].as_str()),
            (400, Some("invalid_json"))
        );
    }
    let large = format!("{{\"prompt\":\"{}\"}}", "a".repeat(9 << 20));
    let (status, _, _) = server.raw(request("POST", "/v1/completions", &large, "").as_bytes());
    assert_eq!(status, 413);
    let flood = "X-A: b\r\n".repeat(5_000);
    let (status, _, _) = server.raw(request("GET", "/health", "", &flood).as_bytes());
    assert_eq!(status, 431);
    let (status, _, _) = server.raw(b"\x16\x03\x01garbage\r\n\r\n");
    assert_eq!(status, 400);
    assert_eq!(server.ask("GET", "/health", "").0, 200);
}

#[test]
fn texts_become_the_ids_that_the_program_makes_of_them_and_back() {
    let workplace = Workplace::with_older_runs();
    let server = Server::start(&workplace, "routed");
    let (status, info) = server.ask("GET", "/tokenizer_info", "");
    assert_eq!((status, info["eos_token"].as_str()), (200, Some("</s>")));
    let ids = |text: &str, adds: bool| {
        let body = json!({ "prompt": text, "add_special_tokens": adds }).to_string();
        let (status, mut answer) = server.ask("POST", "/tokenize", &body);
        assert_eq!(status, 200, "{answer}");
        let tokens: Vec<u64> = serde_json::from_value(answer["tokens"].take()).unwrap();
        tokens
    };
    let plain = ids("Once upon", false);
    let begin = info["bos_token_id"].as_u64().unwrap();
    assert_eq!(ids("Once upon", true), [&[begin][..], &plain].concat());
    let end = info["eos_token_id"].as_u64().unwrap();
    assert_eq!(ids("</s>", false), [end]);
    let back = |ids: &[u64]| {
        server.ask(
            "POST",
            "/v1/detokenize",
            &json!({ "tokens": ids }).to_string(),
        )
    };
    assert_eq!(back(&plain), (200, json!({ "prompt": "Once upon" })));
    assert_eq!(back(&[u64::MAX]).0, 400);
    // A text is read behind the start symbol, ids as they come.
    let of = |prompt: Value| {
        let request = json!({ "prompt": prompt, "max_tokens": 4, "temperature": 0, "logprobs": 1 });
        server.complete(&request)[0]["logprobs"]["token_logprobs"].clone()
    };
    assert_eq!(of(json!("Once upon")), of(json!(ids("Once upon", true))));
    assert_ne!(of(json!("Once upon")), of(json!(plain)));
}

#[test]
fn who_leaves_makes_room_and_a_signal_lets_answers_end() {
    let workplace = Workplace::with_older_runs();
    workplace.write("keys", "secret\n");
    // A graph has no context, so that a text can be as long as the test needs it.
    let mut server = Server::start(&workplace, "brillm --slots 2 --queue 2 --longest 1000000");
    let endless =
        json!({ "prompt": "Once", "max_tokens": 900_000, "ignore_eos": true, "stream": true });
    let sent = request("POST", "/v1/completions", &endless.to_string(), "");
    let begin = || {
        let mut stream = TcpStream::connect(&server.address).unwrap();
        stream.write_all(sent.as_bytes()).unwrap();
        let mut some = [0; 1];
        stream.read_exact(&mut some).unwrap();
        stream
    };
    let (one, two) = (begin(), begin());
    server.wait_for("nerve_texts_running 2");
    // Two wait, and the next one has to come again.
    let short = json!({ "prompt": "Once", "max_tokens": 3 }).to_string();
    let short = request("POST", "/v1/completions", &short, "");
    thread::scope(|scope| {
        let waiting = [(), ()].map(|()| scope.spawn(|| server.raw(short.as_bytes())));
        server.wait_for("nerve_texts_waiting 2");
        let (status, head, _) = server.raw(short.as_bytes());
        assert_eq!(status, 429);
        assert!(head.contains("retry-after: 1"), "{head}");
        drop(one);
        for waiting in waiting {
            assert_eq!(waiting.join().unwrap().0, 200);
        }
    });
    drop(two);
    server.wait_for("nerve_texts_running 0");
    // An answer that is underway ends; afterwards the server does.
    let medium = json!({ "prompt": "Once", "max_tokens": 3000, "ignore_eos": true }).to_string();
    let medium = request("POST", "/v1/completions", &medium, "");
    thread::scope(|scope| {
        let answer = scope.spawn(|| server.raw(medium.as_bytes()));
        server.wait_for("nerve_texts_running 1");
        server.signal(15);
        let (status, _, body) = answer.join().unwrap();
        let answer: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(
            (status, answer["usage"]["completion_tokens"].as_u64()),
            (200, Some(3000))
        );
    });
    assert_eq!(server.process.wait().unwrap().code(), Some(0));

    let server = Server::start(&workplace, "ladder --api-key-file keys");
    let asked = |headers: &str| {
        let request = request("GET", "/v1/models", "", headers);
        server.raw(request.as_bytes()).0
    };
    assert_eq!(asked(""), 401);
    assert_eq!(asked("Authorization: Bearer wrong\r\n"), 401);
    assert_eq!(asked("Authorization: Bearer secret\r\n"), 200);
    assert_eq!(server.ask("GET", "/health", "").0, 200);
}

#[test]
fn what_cannot_be_served_is_said_before() {
    let workplace = Workplace::with_older_runs();
    workplace.write("keys", "\n");
    workplace.nerve("serve nothing").expect(3);
    let no_keys = workplace
        .nerve("serve ladder --api-key-file keys")
        .expect(2);
    assert!(
        no_keys.stderr.contains("keys: found no key"),
        "{}",
        no_keys.stderr
    );
    let nowhere = workplace
        .nerve("serve ladder --host 203.0.113.7 --port 0")
        .expect(4);
    assert!(
        nowhere.stderr.contains("203.0.113.7:0: cannot listen"),
        "{}",
        nowhere.stderr
    );
    workplace.nerve("serve ladder --slots 0").expect(2);
}
