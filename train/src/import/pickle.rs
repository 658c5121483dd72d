//! Parses Python's pickle format into inert values: nothing is called, whatever a file names.
//!
//! Values live in one list and refer to each other by index, so a file that repeats a value a billion times stays as small in
//! memory as it is on disk. Only the opcodes of binary pickles are read (protocols 2 to 5, as `torch.save` writes them).

use std::collections::HashMap;

/// How many steps a pickle may take. Each makes at most one value, so this bounds the memory for a file of many small ones.
const MOST_STEPS: usize = 4 << 20;

/// The position of a value in [`Pickle::values`].
pub type Index = usize;

/// One value.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Numbers that are no integers, bytes, None, and what has no meaning here.
    Other,
    /// An integer; also true and false.
    Integer(i64),
    /// A text.
    Text(String),
    /// A tuple or list.
    Sequence(Vec<Index>),
    /// A dictionary.
    Dictionary(Vec<(Index, Index)>),
    /// A class or function, by module and name.
    Global(Box<[String; 2]>),
    /// The result of a call, which is not made.
    Call(Box<Call>),
    /// A reference to something kept outside of the pickle.
    Persistent(Index),
    /// Where a group of values begins on the stack.
    Mark,
}

/// The result of a call that is not made; it may have been filled like a dictionary since.
#[derive(Clone, Debug, PartialEq)]
pub struct Call {
    /// What would have been called.
    function: Index,
    /// With what.
    arguments: Index,
    /// What was put into the result.
    items: Vec<(Index, Index)>,
}

/// The values of a file.
#[derive(Debug)]
pub struct Pickle {
    values: Vec<Value>,
    root: Index,
}

impl Pickle {
    /// Reads a pickle; an error says what is wrong with it and at which byte.
    ///
    /// # Errors
    /// For anything that is no pickle.
    pub fn read(bytes: &[u8]) -> Result<Self, String> {
        let mut machine = Machine {
            bytes,
            at: 0,
            values: Vec::new(),
            stack: Vec::new(),
            memo: HashMap::new(),
        };
        let root = machine
            .run()
            .map_err(|what| format!("byte {}: {what}", machine.at))?;
        Ok(Self {
            values: machine.values,
            root,
        })
    }

    /// The index of the top-level value.
    pub fn root(&self) -> Index {
        self.root
    }

    /// The value at an index.
    pub fn get(&self, index: Index) -> &Value {
        &self.values[index]
    }

    /// The classes and functions that are named anywhere, by module and name.
    pub fn globals(&self) -> impl Iterator<Item = (&str, &str)> {
        self.values.iter().filter_map(Value::global)
    }

    /// The module and name of a class or function.
    pub fn global(&self, index: Index) -> Option<(&str, &str)> {
        self.get(index).global()
    }

    /// A text.
    pub fn text(&self, index: Index) -> Option<&str> {
        match self.get(index) {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    /// An integer, if it can be a number of elements.
    pub fn count(&self, index: Index) -> Option<usize> {
        match self.get(index) {
            Value::Integer(number) => usize::try_from(*number).ok(),
            _ => None,
        }
    }

    /// A tuple or list.
    pub fn sequence(&self, index: Index) -> Option<&[Index]> {
        match self.get(index) {
            Value::Sequence(items) => Some(items),
            _ => None,
        }
    }

    /// The entries of a dictionary, or of an object that was filled like one.
    pub fn entries(&self, index: Index) -> Option<&[(Index, Index)]> {
        match self.get(index) {
            Value::Dictionary(items) => Some(items),
            Value::Call(call) => Some(&call.items),
            _ => None,
        }
    }

    /// The module, name and arguments of a call.
    pub fn call(&self, index: Index) -> Option<(&str, &str, &[Index])> {
        let Value::Call(call) = self.get(index) else {
            return None;
        };
        let (module, name) = self.global(call.function)?;
        Some((module, name, self.sequence(call.arguments)?))
    }
}

impl Value {
    fn global(&self) -> Option<(&str, &str)> {
        match self {
            Self::Global(names) => Some((&names[0], &names[1])),
            _ => None,
        }
    }
}

struct Machine<'a> {
    bytes: &'a [u8],
    at: usize,
    values: Vec<Value>,
    stack: Vec<Index>,
    memo: HashMap<u64, Index>,
}

type PickleResult<T> = Result<T, String>;

impl<'a> Machine<'a> {
    fn run(&mut self) -> PickleResult<Index> {
        for _ in 0..MOST_STEPS {
            match self.take(1)?[0] {
                b'.' => return self.pop(),
                opcode => self.step(opcode)?,
            }
        }
        Err(format!("more than {MOST_STEPS} values and references"))
    }

    fn step(&mut self, opcode: u8) -> PickleResult<()> {
        match opcode {
            // PROTO, FRAME
            0x80 => self.take(1).map(drop),
            0x95 => self.take(8).map(drop),
            // NONE, BINFLOAT
            b'N' => self.push(Value::Other),
            b'G' => {
                self.take(8)?;
                self.push(Value::Other)
            }
            // NEWTRUE, NEWFALSE, BININT, BININT1, BININT2, LONG1
            0x88 => self.push(Value::Integer(1)),
            0x89 => self.push(Value::Integer(0)),
            b'J' => self.integer(4, true),
            b'K' => self.integer(1, false),
            b'M' => self.integer(2, false),
            0x8a => {
                let length = self.unsigned(1)?;
                self.integer(length, true)
            }
            // BINUNICODE, SHORT_BINUNICODE, BINUNICODE8
            b'X' => self.text(4),
            0x8c => self.text(1),
            0x8d => self.text(8),
            // SHORT_BINSTRING, SHORT_BINBYTES, BINSTRING, BINBYTES, BINBYTES8, BYTEARRAY8
            b'U' | b'C' => self.opaque(1),
            b'T' | b'B' => self.opaque(4),
            0x8e | 0x96 => self.opaque(8),
            // EMPTY_TUPLE, EMPTY_LIST, EMPTY_SET, EMPTY_DICT, MARK
            b')' | b']' | 0x8f => self.push(Value::Sequence(Vec::new())),
            b'}' => self.push(Value::Dictionary(Vec::new())),
            b'(' => self.push(Value::Mark),
            // TUPLE, LIST, TUPLE1, TUPLE2, TUPLE3
            b't' | b'l' => {
                let items = self.pop_to_mark()?;
                self.push(Value::Sequence(items))
            }
            0x85..=0x87 => {
                let n = usize::from(opcode - 0x84);
                let first = self.stack.len().checked_sub(n).ok_or("an empty stack")?;
                let items = self.stack.split_off(first);
                self.push(Value::Sequence(items))
            }
            // APPEND, APPENDS, ADDITEMS
            b'a' => {
                let item = self.pop()?;
                self.append(vec![item])
            }
            b'e' | 0x90 => {
                let items = self.pop_to_mark()?;
                self.append(items)
            }
            // SETITEM, SETITEMS, DICT
            b's' => {
                let value = self.pop()?;
                let key = self.pop()?;
                self.set(vec![key, value])
            }
            b'u' => {
                let items = self.pop_to_mark()?;
                self.set(items)
            }
            b'd' => {
                let items = self.pop_to_mark()?;
                self.push(Value::Dictionary(Vec::new()))?;
                self.set(items)
            }
            // GLOBAL, STACK_GLOBAL
            b'c' => {
                let (module, name) = (self.line()?, self.line()?);
                self.push(Value::Global(Box::new([module, name])))
            }
            0x93 => {
                let (name, module) = (self.pop()?, self.pop()?);
                match (&self.values[module], &self.values[name]) {
                    (Value::Text(module), Value::Text(name)) => {
                        let names = Box::new([module.clone(), name.clone()]);
                        self.push(Value::Global(names))
                    }
                    _ => Err("a class without a name".to_string()),
                }
            }
            // REDUCE, NEWOBJ, BINPERSID
            b'R' | 0x81 => {
                let (arguments, function) = (self.pop()?, self.pop()?);
                self.push(Value::Call(Box::new(Call {
                    function,
                    arguments,
                    items: Vec::new(),
                })))
            }
            b'Q' => {
                let id = self.pop()?;
                self.push(Value::Persistent(id))
            }
            // BUILD, POP, POP_MARK, DUP
            b'b' | b'0' => self.pop().map(drop),
            b'1' => self.pop_to_mark().map(drop),
            b'2' => {
                let top = *self.stack.last().ok_or("an empty stack")?;
                self.stack.push(top);
                Ok(())
            }
            // BINPUT, LONG_BINPUT, MEMOIZE, BINGET, LONG_BINGET
            b'q' => self.remember(1),
            b'r' => self.remember(4),
            0x94 => self.memoize(self.memo.len() as u64),
            b'h' => self.recall(1),
            b'j' => self.recall(4),
            other => Err(format!(
                "the opcode {other:#04x}, which no torch.save writes"
            )),
        }
    }

    fn push(&mut self, value: Value) -> PickleResult<()> {
        self.stack.push(self.values.len());
        self.values.push(value);
        Ok(())
    }

    fn pop(&mut self) -> PickleResult<Index> {
        self.stack.pop().ok_or_else(|| "an empty stack".to_string())
    }

    fn pop_to_mark(&mut self) -> PickleResult<Vec<Index>> {
        let is_mark = |&index: &Index| self.values[index] == Value::Mark;
        let mark = self
            .stack
            .iter()
            .rposition(is_mark)
            .ok_or("a group without a beginning")?;
        let items = self.stack.split_off(mark + 1);
        self.stack.pop();
        Ok(items)
    }

    fn append(&mut self, items: Vec<Index>) -> PickleResult<()> {
        let &top = self.stack.last().ok_or("an empty stack")?;
        if let Value::Sequence(sequence) = &mut self.values[top] {
            sequence.extend(items);
        }
        Ok(())
    }

    fn set(&mut self, items: Vec<Index>) -> PickleResult<()> {
        let &top = self.stack.last().ok_or("an empty stack")?;
        let pairs = items.chunks_exact(2).map(|pair| (pair[0], pair[1]));
        match &mut self.values[top] {
            Value::Dictionary(entries) => entries.extend(pairs),
            Value::Call(call) => call.items.extend(pairs),
            _ => {}
        }
        Ok(())
    }

    /// Remembers the top of the stack under a number of so many bytes.
    fn remember(&mut self, width: u64) -> PickleResult<()> {
        let slot = self.unsigned(width)?;
        self.memoize(slot)
    }

    fn memoize(&mut self, slot: u64) -> PickleResult<()> {
        let &top = self.stack.last().ok_or("an empty stack")?;
        self.memo.insert(slot, top);
        Ok(())
    }

    fn recall(&mut self, width: u64) -> PickleResult<()> {
        let slot = self.unsigned(width)?;
        let index = self.memo.get(&slot).ok_or("a reference to nothing")?;
        self.stack.push(*index);
        Ok(())
    }

    /// A text, behind its length in so many bytes.
    fn text(&mut self, width: u64) -> PickleResult<()> {
        let length = self.unsigned(width)?;
        let bytes = self.take(length)?;
        let text = std::str::from_utf8(bytes).map_err(|_| "a text that is not UTF-8")?;
        self.push(Value::Text(text.to_string()))
    }

    /// Bytes that mean nothing here, behind their length.
    fn opaque(&mut self, width: u64) -> PickleResult<()> {
        let length = self.unsigned(width)?;
        self.take(length)?;
        self.push(Value::Other)
    }

    /// An integer of so many bytes; one that fits no i64 has no meaning here.
    fn integer(&mut self, width: u64, signed: bool) -> PickleResult<()> {
        let bytes = self.take(width)?;
        let negative = signed && bytes.last().is_some_and(|&byte| byte >= 0x80);
        let value = match bytes.len() {
            0..=8 => Value::Integer(padded(bytes, negative)),
            _ => Value::Other,
        };
        self.push(value)
    }

    fn unsigned(&mut self, width: u64) -> PickleResult<u64> {
        Ok(padded(self.take(width)?, false) as u64)
    }

    fn line(&mut self) -> PickleResult<String> {
        let rest = &self.bytes[self.at..];
        let end = rest
            .iter()
            .position(|&byte| byte == b'\n')
            .ok_or("a line without an end")?;
        self.at += end + 1;
        Ok(String::from_utf8_lossy(&rest[..end]).into_owned())
    }

    fn take(&mut self, n: u64) -> PickleResult<&'a [u8]> {
        let rest = &self.bytes[self.at..];
        let n = usize::try_from(n).ok().filter(|&n| n <= rest.len());
        let n = n.ok_or("the end of the file where more was promised")?;
        self.at += n;
        Ok(&rest[..n])
    }
}

/// A little-endian number of at most eight bytes.
fn padded(bytes: &[u8], negative: bool) -> i64 {
    let mut all = [if negative { 0xff } else { 0 }; 8];
    all[..bytes.len()].copy_from_slice(bytes);
    i64::from_le_bytes(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dictionary_of_everything_is_read() {
        // {'a': (1, -2, True), 'b': [300, 'ä'], 'c': None} in protocol 2.
        let bytes = b"\x80\x02}q\x00(X\x01\x00\x00\x00aq\x01K\x01J\xfe\xff\xff\xff\x88\x87q\x02X\x01\x00\x00\x00b]q\x03(M\x2c\x01X\x02\x00\x00\x00\xc3\xa4eX\x01\x00\x00\x00cNu.";
        let pickle = Pickle::read(bytes).unwrap();
        let entries = pickle.entries(pickle.root()).unwrap();
        let keys: Vec<_> = entries
            .iter()
            .map(|entry| pickle.text(entry.0).unwrap())
            .collect();
        assert_eq!(keys, ["a", "b", "c"]);
        let numbers = pickle.sequence(entries[0].1).unwrap();
        assert_eq!(pickle.get(numbers[1]), &Value::Integer(-2));
        let list = pickle.sequence(entries[1].1).unwrap();
        assert_eq!(
            (pickle.count(list[0]), pickle.text(list[1])),
            (Some(300), Some("ä"))
        );
    }

    #[test]
    fn a_call_stays_a_description() {
        let pickle = Pickle::read(b"\x80\x02cos\nsystem\nX\x02\x00\x00\x00ls\x85R.").unwrap();
        let (module, name, arguments) = pickle.call(pickle.root()).unwrap();
        assert_eq!(
            (module, name, pickle.text(arguments[0])),
            ("os", "system", Some("ls"))
        );
    }

    #[test]
    fn a_list_of_lists_of_the_same_lists_costs_what_it_has_bytes() {
        // Forty levels, each holding the level below ten times: 10^40 values if anybody copied them.
        let mut bytes = b"\x80\x02]q\x00".to_vec();
        for level in 0..40u8 {
            bytes.extend([b']', b'q', level + 1, b'(']);
            (0..10).for_each(|_| bytes.extend([b'h', level]));
            bytes.push(b'e');
        }
        bytes.push(b'.');
        let pickle = Pickle::read(&bytes).unwrap();
        assert!(pickle.values.len() < bytes.len());
    }

    #[test]
    fn what_is_broken_is_an_error_and_no_panic() {
        let cases: [&[u8]; 9] = [
            b"",
            b"\x80",
            b"}",
            b".",
            b"u.",
            b"h\x07.",
            b"X\xff\xff\xff\xff",
            b"\x8d\xff\xff\xff\xff\xff\xff\xff\xff",
            b"\x85.",
        ];
        for bytes in cases {
            assert!(Pickle::read(bytes).is_err(), "{bytes:?}");
        }
        // Every prefix and every changed byte of a good one.
        let good = b"\x80\x02}q\x00(X\x01\x00\x00\x00aq\x01K\x01\x88\x86q\x02X\x01\x00\x00\x00bcm\nn\n)Ru.";
        for end in 0..good.len() {
            assert!(Pickle::read(&good[..end]).is_err());
        }
        for (place, value) in (0..good.len()).flat_map(|place| (0..=255).map(move |v| (place, v))) {
            let mut bytes = good.to_vec();
            bytes[place] = value;
            let _ = Pickle::read(&bytes);
        }
    }
}
