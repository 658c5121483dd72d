//! `Torch`: writes tensors to a file as `torch.save` does (a zip with a pickle of names and stored numbers), as a bare state
//! dict or a training checkpoint.

use std::fs;
use std::io::{Cursor, Write};
use std::path::Path;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

/// Tensors on their way to a file.
#[derive(Default)]
pub struct Torch {
    /// The items of the state dict.
    items: Vec<u8>,
    storages: Vec<Vec<u8>>,
}

impl Torch {
    /// Adds a tensor.
    pub fn tensor(&mut self, name: &str, shape: &[usize], values: &[f32]) {
        assert_eq!(shape.iter().product::<usize>(), values.len(), "{name}");
        let strides: Vec<usize> = (1..=shape.len())
            .map(|from| shape[from..].iter().product())
            .collect();
        let items = &mut self.items;
        text(items, name);
        items.extend(b"ctorch._utils\n_rebuild_tensor_v2\n((");
        text(items, "storage");
        items.extend(b"ctorch\nFloatStorage\n");
        text(items, &self.storages.len().to_string());
        text(items, "cpu");
        integer(items, values.len());
        items.extend(b"tQ");
        integer(items, 0);
        for counts in [shape, &strides] {
            items.push(b'(');
            counts.iter().for_each(|&count| integer(items, count));
            items.push(b't');
        }
        items.extend(b"\x89ccollections\nOrderedDict\n)RtR");
        self.storages.push(
            values
                .iter()
                .flat_map(|value| value.to_le_bytes())
                .collect(),
        );
    }

    /// The state dict alone, as released.
    pub fn write(&self, path: &Path) {
        let pickle = [b"\x80\x02".to_vec(), self.state_dict(), b".".to_vec()].concat();
        self.archive(path, &pickle);
    }

    /// As a training script keeps it: beside its counters, its options and what the optimizer remembers.
    pub fn write_wrapped(&self, path: &Path, options: &str) {
        let mut pickle = b"\x80\x02}(".to_vec();
        text(&mut pickle, "epoch");
        integer(&mut pickle, 7);
        text(&mut pickle, "args");
        pickle.extend(format!("c{options}\n)").bytes());
        pickle.extend(b"\x81}(");
        text(&mut pickle, "seed");
        integer(&mut pickle, 42);
        pickle.extend(b"ub");
        text(&mut pickle, "optimizer_state_dict");
        pickle.push(b'}');
        text(&mut pickle, "model_state_dict");
        pickle.extend(self.state_dict());
        pickle.extend(b"u.");
        self.archive(path, &pickle);
    }

    /// An ordered dictionary with the attribute that torch gives it.
    fn state_dict(&self) -> Vec<u8> {
        let mut dict = b"ccollections\nOrderedDict\n)R(".to_vec();
        dict.extend(&self.items);
        dict.extend(b"u}");
        text(&mut dict, "_metadata");
        dict.extend(b"ccollections\nOrderedDict\n)Rsb");
        dict
    }

    fn archive(&self, path: &Path, pickle: &[u8]) {
        let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
        let stored = SimpleFileOptions::default().compression_method(CompressionMethod::Stored);
        let mut entry = |name: String, bytes: &[u8]| {
            writer
                .start_file(format!("any name/{name}"), stored)
                .unwrap();
            writer.write_all(bytes).unwrap();
        };
        entry("data.pkl".to_string(), pickle);
        for (name, content) in [
            ("byteorder", "little"),
            ("version", "3\n"),
            (".format_version", "1"),
        ] {
            entry(name.to_string(), content.as_bytes());
        }
        for (key, bytes) in self.storages.iter().enumerate() {
            entry(format!("data/{key}"), bytes);
        }
        entry(".data/serialization_id".to_string(), b"0123");
        fs::write(path, writer.finish().unwrap().into_inner()).unwrap();
    }
}

fn text(pickle: &mut Vec<u8>, text: &str) {
    pickle.push(b'X');
    pickle.extend((text.len() as u32).to_le_bytes());
    pickle.extend(text.bytes());
}

fn integer(pickle: &mut Vec<u8>, number: usize) {
    pickle.push(b'J');
    pickle.extend((number as i32).to_le_bytes());
}
