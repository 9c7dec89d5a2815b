//! GopherWatch server.
