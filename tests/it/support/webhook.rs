//! A receiver of notifications: takes what is posted to it, and answers as it is told.

use std::{
    collections::VecDeque,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

use super::wait::{SOON, found};

/// One request.
#[derive(Clone, Debug)]
pub(crate) struct Post {
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
    pub(crate) came: Instant,
}

impl Post {
    /// A header, by its name in lower case.
    pub(crate) fn header(&self, name: &str) -> Option<String> {
        self.head.lines().find_map(|line| {
            let (found, value) = line.split_once(": ")?;
            found.eq_ignore_ascii_case(name).then(|| value.to_owned())
        })
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|err| panic!("{err}: {self:?}"))
    }

    /// `raise web/a`, or `digest web/a web/b`.
    pub(crate) fn words(&self) -> String {
        let body = self.json();
        let mut text = body["gopherwatch"]["event"].as_str().unwrap().to_owned();
        for alert in body["alerts"].as_array().unwrap() {
            let label = |name: &str| alert["labels"][name].as_str().unwrap().to_owned();
            text += &format!(" {}/{}", label("service"), label("instance"));
        }
        text
    }

    pub(crate) fn key(&self) -> String {
        self.header("idempotency-key").unwrap()
    }
}

struct Shared {
    posts: Mutex<Vec<Post>>,
    /// Answers to the next requests; then 200.
    answers: Mutex<VecDeque<String>>,
    /// What fails whenever it is told, in words.
    poison: Mutex<Option<String>>,
    /// Whether requests are taken and not answered.
    hangs: AtomicBool,
    is_over: AtomicBool,
}

/// A listening receiver. It ends with its value.
pub(crate) struct Hook {
    addr: SocketAddr,
    shared: Arc<Shared>,
}

impl Hook {
    pub(crate) fn start() -> Self {
        Self::at("127.0.0.1:0".parse().unwrap())
    }

    /// On a port where one was before.
    pub(crate) fn at(addr: SocketAddr) -> Self {
        let listener = found(SOON, "the port is free", || TcpListener::bind(addr).ok());
        let shared = Arc::new(Shared {
            posts: Mutex::default(),
            answers: Mutex::default(),
            poison: Mutex::default(),
            hangs: AtomicBool::new(false),
            is_over: AtomicBool::new(false),
        });
        let hook = Self { addr: listener.local_addr().unwrap(), shared: shared.clone() };
        thread::spawn(move || {
            for stream in listener.incoming() {
                if shared.is_over.load(Ordering::SeqCst) {
                    return;
                }
                let (stream, shared) = (stream.unwrap(), shared.clone());
                thread::spawn(move || serve(&stream, &shared));
            }
        });
        hook
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// `[[receivers]]` of this name, with further fields.
    pub(crate) fn receiver(&self, name: &str, fields: &str) -> String {
        let url = format!("http://{}/{name}", self.addr);
        format!(
            "[[receivers]]\nname = \"{name}\"\ntype = \"webhook\"\nurl = \"{url}\"\nallow_private = true\n{fields}\n"
        )
    }

    /// The next requests are answered so: a status, headers and an empty line.
    pub(crate) fn answers(&self, answers: &[&str]) {
        self.shared.answers.lock().unwrap().extend(answers.iter().map(|&answer| answer.to_owned()));
    }

    /// What says this is answered 500 from now on.
    pub(crate) fn chokes_on(&self, words: &str) {
        *self.shared.poison.lock().unwrap() = Some(words.to_owned());
    }

    /// Whether requests are taken and not answered from now on.
    pub(crate) fn hangs(&self, hangs: bool) {
        self.shared.hangs.store(hangs, Ordering::SeqCst);
    }

    /// What was posted so far.
    pub(crate) fn posts(&self) -> Vec<Post> {
        self.shared.posts.lock().unwrap().clone()
    }

    /// What was posted, once there are `n`. More are a fault at once.
    pub(crate) fn posts_of(&self, n: usize) -> Vec<Post> {
        found(SOON, &format!("{n} posts"), || {
            let posts = self.posts();
            let words = || posts.iter().map(Post::words).collect::<Vec<_>>();
            assert!(posts.len() <= n, "{} posts instead of {n}: {:?}", posts.len(), words());
            (posts.len() == n).then_some(posts)
        })
    }

    /// The words of what was posted, once there are `n`.
    pub(crate) fn told(&self, n: usize) -> Vec<String> {
        self.posts_of(n).iter().map(Post::words).collect()
    }
}

impl Drop for Hook {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::SeqCst);
        // Wakes it, so that it closes its port.
        let _ = TcpStream::connect(self.addr);
    }
}

/// Takes the requests of one connection.
fn serve(stream: &TcpStream, shared: &Shared) {
    let mut reader = BufReader::new(stream);
    loop {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            match reader.read_line(&mut head) {
                Ok(n) if n > 0 => {}
                _ => return,
            }
        }
        let length = head.lines().find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
        let mut body = vec![0; length.unwrap()];
        if reader.read_exact(&mut body).is_err() || shared.is_over.load(Ordering::SeqCst) {
            return;
        }
        let post = Post { head, body, came: Instant::now() };
        let is_poison = shared.poison.lock().unwrap().as_ref().is_some_and(|poison| *poison == post.words());
        shared.posts.lock().unwrap().push(post);
        while shared.hangs.load(Ordering::SeqCst) {
            thread::sleep(Duration::from_millis(5));
        }
        let usual = if is_poison { "500 Oh\r\n" } else { "200 OK\r\n" };
        let answer = shared.answers.lock().unwrap().pop_front().unwrap_or_else(|| usual.to_owned());
        let answer = format!("HTTP/1.1 {answer}content-length: 0\r\n\r\n");
        let mut stream = stream;
        if stream.write_all(answer.as_bytes()).is_err() {
            return;
        }
    }
}
