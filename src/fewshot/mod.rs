//! fewshot.
