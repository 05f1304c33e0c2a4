//! The causal transformer and its adapters. Knows no text.

pub mod audit;
pub mod checkpoint;
pub mod config;
pub mod device;
pub mod dropout;
pub mod huggingface;
pub mod init;
pub mod kv_cache;
pub mod linear;
pub mod lora;
pub mod ops;
pub mod quantize;
pub mod starcoder2;
pub mod transformer;
