//! Fused linear maps on the host, with gradients: rows times a weight matrix or its transpose, and products added to all or
//! selected rows, each group of rows with a matrix of its own.

use super::super::groups::Group;
use super::custom_op::{Flow, input, run, run_many};
use super::gather::{pick, put_back};
use super::gemm::product;
use super::gradient::{Gradient, product_if};
use super::groups::{n_rows, run_each, share};
use super::numeric::{Rows, copied, part};
use super::packed::Packed;
use burn::nn::Linear;
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use ndarray::{Array2, ArrayView2};

/// See [`linear`](super::super::linear::linear).
pub(crate) fn linear<B: Backend>(x: &Tensor<B, 2>, map: &Tensor<B, 2>) -> Option<Tensor<B, 2>> {
    times(x, map, false)
}

/// See [`linear_transposed`](super::super::linear::linear_transposed).
pub(crate) fn linear_transposed<B: Backend>(
    x: &Tensor<B, 2>,
    map: &Tensor<B, 2>,
) -> Option<Tensor<B, 2>> {
    times(x, map, true)
}

/// See [`add_linear_each`](super::super::linear::add_linear_each).
pub(crate) fn add_linear<B: Backend>(
    y: &Tensor<B, 2>,
    which: Option<&[usize]>,
    x: &Tensor<B, 2>,
    groups: &[Group<&Linear<B>>],
    packed: &Packed,
) -> Option<Tensor<B, 2>> {
    let (which, n_rows) = (which.map(<[usize]>::to_vec), n_rows(groups));
    let packed = packed.lend();
    let maps = groups.iter().map(|group| input(&group.of.weight.val()));
    let inputs = [input(y), input(x)].into_iter().chain(maps).collect();
    run_many(inputs, move |inputs| {
        let (y, x, maps) = (&inputs[0], &inputs[1], &inputs[2..]);
        let mut sum = match &which {
            Some(which) => pick(y, which),
            None => copied(y),
        };
        run_each(&n_rows, maps, &mut sum, |which, map, out| {
            packed.add_product(part(x.view(), 0, which), map.view(), out);
        });
        let back = move |Flow {
                             gradient, wanted, ..
                         }: Flow<'_>| {
            let (x, maps) = (&inputs[1], &inputs[2..]);
            let mut of_x = Array2::zeros(x.dim());
            let of_maps = run_each(&n_rows, maps, &mut of_x, |which, map, out| {
                let gradient = share(&gradient, which.clone());
                if wanted[1] {
                    packed.add_product(gradient.view(), map.t(), out);
                }
                Gradient::Product(share(x, which), gradient)
            });
            let of_y = match &which {
                Some(which) => put_back(gradient, which),
                None => Gradient::Whole(gradient),
            };
            let found = [of_y, of_x.into()].into_iter().chain(of_maps);
            found.map(Some).collect()
        };
        (sum, Box::new(back))
    })
}

/// `x W`, or `x Wᵀ`.
fn times<B: Backend>(
    x: &Tensor<B, 2>,
    map: &Tensor<B, 2>,
    transposed: bool,
) -> Option<Tensor<B, 2>> {
    run([input(x), input(map)], move |[x, map]| {
        let [forward, _] = sides(&map, transposed);
        let found = product(x.view(), forward);
        let back = move |Flow {
                             gradient, wanted, ..
                         }: Flow<'_>| {
            let [_, back] = sides(&map, transposed);
            let of_x = product_if(wanted[0], gradient.view(), back);
            let of_map = wanted[1].then(|| match transposed {
                true => Gradient::Product(gradient, x),
                false => Gradient::Product(x, gradient),
            });
            vec![of_x, of_map]
        };
        (found, Box::new(back))
    })
}

/// The map that is meant, and its transpose.
fn sides(map: &Rows, transposed: bool) -> [ArrayView2<'_, f32>; 2] {
    match transposed {
        true => [map.t(), map.view()],
        false => [map.view(), map.t()],
    }
}
