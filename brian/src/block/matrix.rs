//! The bias-free linear map that everything in a block is made of.

use crate::kernel::groups::Group;
use crate::kernel::node::reshape;
use crate::kernel::pin::{Pinned, pin};
use crate::kernel::rows::Parts;
use crate::kernel::{self, gpu, product};
use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::nn::{Initializer, Linear, LinearConfig, RmsNorm};
use burn::tensor::backend::Backend;
use burn::tensor::{DType, IndexingUpdateOp, Int, Tensor, TensorData};
use std::ops::Range;
use std::sync::Arc;

/// A map `[d_in, d_out]`; its values come from [`crate::initial`].
pub(crate) fn matrix<B: Backend>(d_in: usize, d_out: usize, device: &B::Device) -> Linear<B> {
    LinearConfig::new(d_in, d_out)
        .with_bias(false)
        .with_initializer(Initializer::Zeros)
        .init(device)
}

/// A module that several passes of a walk use, as it is; see `kernel::sum`.
pub(crate) fn shared<B: Backend, M: Module<B>>(module: M) -> M {
    struct Share;

    impl<B: Backend> ModuleMapper<B> for Share {
        fn map_float<const D: usize>(&mut self, map: Param<Tensor<B, D>>) -> Param<Tensor<B, D>> {
            let (id, value, mapper) = map.consume();
            let value = match D {
                2 => kernel::node::shared(value),
                _ => value,
            };
            Param::from_mapped_value(id, value, mapper)
        }
    }

    module.map(&mut Share)
}

/// Keeps the maps of a module packed, for as long as what this gives is held; see `kernel::pin`.
pub(crate) fn pins<B: Backend, M: Module<B>>(module: &M) -> Vec<Arc<Pinned>> {
    struct Pins(Vec<Arc<Pinned>>);

    impl<B: Backend> ModuleVisitor<B> for Pins {
        fn visit_float<const D: usize>(&mut self, map: &Param<Tensor<B, D>>) {
            self.0.extend(pin(&map.val()));
        }
    }

    let mut pins = Pins(Vec::new());
    module.visit(&mut pins);
    pins.0
}

/// `a b` in the type of `b`, given back in that of `a`; see [`crate::precision`].
pub(crate) fn multiply<B: Backend, const D: usize>(
    a: Tensor<B, D>,
    b: Tensor<B, D>,
) -> Tensor<B, D> {
    let dtype = a.dtype();
    a.cast(b.dtype()).matmul(b).cast(dtype)
}

/// The type in which what is no product is computed, beside products in a type.
pub(crate) fn exact(products: DType) -> DType {
    match products {
        DType::BF16 => DType::F32,
        other => other,
    }
}

/// Rows behind a norm, in the type of the product that they go into.
pub fn normed<B: Backend>(norm: &RmsNorm<B>, x: &Tensor<B, 2>, products: DType) -> Tensor<B, 2> {
    let on_host = || kernel::norm::normed(x, norm);
    let found = gpu::norm(x, norm, products).or_else(on_host);
    found.unwrap_or_else(|| norm.forward(x.clone()).cast(products))
}

/// The stream with what a product gave, in the type of the stream.
pub fn plus<B: Backend>(y: Tensor<B, 2>, x: Tensor<B, 2>) -> Tensor<B, 2> {
    gpu::added(&y, &x).unwrap_or_else(|| {
        let dtype = y.dtype();
        y + x.cast(dtype)
    })
}

/// Applies a map to rows.
///
/// # Shapes
/// `[n, d_in]` to `[n, d_out]`
pub(crate) fn times<B: Backend>(x: Tensor<B, 2>, map: &Linear<B>) -> Tensor<B, 2> {
    let map = map.weight.val();
    product::times(&x, &map).unwrap_or_else(|| multiply(x, map))
}

/// Applies a map to every token as one matrix product.
///
/// On `[batch, seq, d_in]` Burn makes one product and one weight gradient per sequence and then adds those up.
///
/// # Shapes
/// `[batch, seq, d_in]` to `[batch, seq, d_out]`
pub(crate) fn per_token<B: Backend>(map: &Linear<B>, x: Tensor<B, 3>) -> Tensor<B, 3> {
    let [batch, seq, _] = x.dims();
    let y = times(per_row(x), map);
    let [_, d_out] = y.dims();
    reshape(y, [batch, seq, d_out])
}

/// The stream with a map of something added: `y + x W`.
///
/// # Shapes
/// `[n, d_out]` and `[n, d_in]` to `[n, d_out]`
pub(crate) fn add_times<B: Backend>(
    y: Tensor<B, 2>,
    x: Tensor<B, 2>,
    map: &Linear<B>,
) -> Tensor<B, 2> {
    let groups = Group::only(map, &y);
    add_times_each(y, None, x, &groups)
}

/// The same, the rows of each group with a map of its own; `which` says which rows of `y` are meant, if not all.
pub(crate) fn add_times_each<B: Backend>(
    y: Tensor<B, 2>,
    which: Option<&[usize]>,
    x: Tensor<B, 2>,
    groups: &[Group<&Linear<B>>],
) -> Tensor<B, 2> {
    product::add_times(&y, which, &x, groups).unwrap_or_else(|| {
        let y = match which {
            Some(which) => some(y, which),
            None => y,
        };
        by_group([y, x], groups, |[y, x], map, _| {
            let map = map.weight.val();
            plus(y, x.cast(map.dtype()).matmul(map))
        })
    })
}

/// What each group of rows becomes, one after another; `make` is told which rows they are.
pub(crate) fn by_group<B: Backend, T, const N: usize>(
    rows: [Tensor<B, 2>; N],
    groups: &[Group<T>],
    make: impl Fn([Tensor<B, 2>; N], &T, Range<usize>) -> Tensor<B, 2>,
) -> Tensor<B, 2> {
    if let [Group { of, n_rows }] = groups {
        return make(rows, of, 0..*n_rows);
    }
    let mut first = 0;
    let made = groups.iter().map(|Group { of, n_rows }| {
        let which = first..first + n_rows;
        first = which.end;
        let own = rows.clone().map(|rows| rows.slice_dim(0, which.clone()));
        make(own, of, which)
    });
    Tensor::cat(made.collect(), 0)
}

/// The stream with a position in it: through an adapter, or as it is.
///
/// # Shapes
/// `[n_tokens, d_model]` and `[n_tokens, d_position]` to `[n_tokens, d_model]`
pub(crate) fn place<B: Backend>(
    hidden: Tensor<B, 2>,
    adapter: Option<&Linear<B>>,
    position: Tensor<B, 2>,
) -> Tensor<B, 2> {
    match adapter {
        Some(adapter) => add_times(hidden, position, adapter),
        None => hidden + position,
    }
}

/// A tensor several times, one copy behind the other along the first dimension.
///
/// Not `repeat_dim`: where that dimension is longer than one, Burn 0.21 adds up its gradient as if each entry stood beside its copies.
pub(crate) fn copies<B: Backend, const D: usize>(x: Tensor<B, D>, n: usize) -> Tensor<B, D> {
    Tensor::cat(vec![x; n], 0)
}

/// `[batch, seq, width]` token by token.
pub(crate) fn per_row<B: Backend>(x: Tensor<B, 3>) -> Tensor<B, 2> {
    let [batch, seq, width] = x.dims();
    reshape(x, [batch * seq, width])
}

/// What a tensor holds, on the host.
pub(crate) fn values<B: Backend>(tensor: &Tensor<B, 2>) -> Vec<f32> {
    let on_host = kernel::node::values(tensor);
    on_host.unwrap_or_else(|| tensor.clone().into_data().iter::<f32>().collect())
}

/// Indices on the device.
pub(crate) fn indices<B: Backend>(rows: &[usize], device: &B::Device) -> Tensor<B, 1, Int> {
    let rows: Vec<i64> = rows.iter().map(|&row| row as i64).collect();
    let n_rows = rows.len();
    Tensor::from_data(TensorData::new(rows, [n_rows]), device)
}

/// Some rows, in the order given.
pub(crate) fn rows<B: Backend>(from: Tensor<B, 2>, which: &[usize]) -> Tensor<B, 2> {
    kernel::rows::rows(&from, which).unwrap_or_else(|| {
        let which = indices(which, &from.device());
        gpu::rows(&from, &which).unwrap_or_else(|| from.select(0, which))
    })
}

/// Some rows; all of them as they are.
pub(crate) fn some<B: Backend>(all: Tensor<B, 2>, which: &[usize]) -> Tensor<B, 2> {
    match which.iter().copied().eq(0..all.dims()[0]) {
        true => all,
        false => rows(all, which),
    }
}

/// A tensor with the rows of some parts in some places; where one place gets several, with their sum.
pub(crate) fn replace<B: Backend>(
    into: Tensor<B, 2>,
    which: &[usize],
    parts: Vec<Tensor<B, 2>>,
) -> Tensor<B, 2> {
    let [n_rows, _] = into.dims();
    if which.iter().copied().eq(0..n_rows) {
        return Tensor::cat(parts, 0);
    }
    kernel::rows::replace(&into, which, &parts).unwrap_or_else(|| {
        let device = into.device();
        let mut stays = vec![1.0; n_rows];
        which.iter().for_each(|&row| stays[row] = 0.0);
        let stays = Tensor::from_data(TensorData::new::<f32, _>(stays, [n_rows, 1]), &device);
        let which = indices(which, &device);
        let rows = Tensor::cat(parts, 0);
        (into * stays).select_assign(0, which, rows, IndexingUpdateOp::Add)
    })
}

/// Some columns of a map.
pub(crate) fn columns<B: Backend>(map: &Tensor<B, 2>, which: Range<usize>) -> Tensor<B, 2> {
    kernel::rows::columns(map, which.start, which.len())
        .unwrap_or_else(|| map.clone().slice_dim(1, which))
}

impl<B: Backend> Parts<B> {
    /// The rows in their order.
    pub fn gather(self) -> Tensor<B, 2> {
        let lengths = self.parts.iter().map(|part| part.dims()[0]);
        let begin = |begin: &mut usize, length| Some(std::mem::replace(begin, *begin + length));
        let begins: Vec<usize> = lengths.scan(0, begin).collect();
        let places = self.places.iter();
        let which: Vec<usize> = places.map(|at| begins[at.part] + at.row).collect();
        some(Tensor::cat(self.parts, 0), &which)
    }
}
