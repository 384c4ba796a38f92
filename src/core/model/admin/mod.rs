//! What operators write, read strictly.
