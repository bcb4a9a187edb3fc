# RDTSC as the scan of an image does not find it: within another instruction, which is jumped over into its middle.

.macro hidden_rdtsc
    .byte 0xeb, 0x01                    # jmp to the second byte of what follows
    .byte 0xb8, 0x0f, 0x31, 0x90, 0x90  # mov eax, 0x9090310f, or from its second byte on: rdtsc; nop; nop
    shl rdx, 32
    or rax, rdx
    xor edx, edx
.endm

# Makes RDI exits, each in the same state.
.macro exits
    xor eax, eax
2:  out 0x80, al
    dec rdi
    jnz 2b
.endm

.section .text.diverging, "ax"

# The time-stamp counter in RAX.
.global diverging_counter
.type diverging_counter, @function
diverging_counter:
    hidden_rdtsc
    ret
.size diverging_counter, . - diverging_counter

# The next ones have it in one place for RDI exits, and nowhere else.
.global diverging_registers
.type diverging_registers, @function
diverging_registers:
    hidden_rdtsc
    mov r11, rax
    exits
    xor r11d, r11d
    ret
.size diverging_registers, . - diverging_registers

.global diverging_vector
.type diverging_vector, @function
diverging_vector:
    hidden_rdtsc
    movq xmm5, rax
    exits
    pxor xmm5, xmm5
    ret
.size diverging_vector, . - diverging_vector

.global diverging_x87
.type diverging_x87, @function
diverging_x87:
    hidden_rdtsc
    push rax
    fild qword ptr [rsp]
    mov qword ptr [rsp], 0
    pop rax
    exits
    fstp st(0)
    ret
.size diverging_x87, . - diverging_x87

# In ring 0: KERNEL_GS_BASE, an address that is canonical. The routine after it puts it back.
.global diverging_msr
.type diverging_msr, @function
diverging_msr:
    hidden_rdtsc
    shl rax, 17
    shr rax, 17
    mov rdx, rax
    shr rdx, 32
    mov ecx, 0xc0000102
    wrmsr
    xor eax, eax
    xor edx, edx
    xor ecx, ecx
    ret
.size diverging_msr, . - diverging_msr

.global diverging_msr_again
.type diverging_msr_again, @function
diverging_msr_again:
    xor eax, eax
    xor edx, edx
    mov ecx, 0xc0000102
    wrmsr
    ret
.size diverging_msr_again, . - diverging_msr_again

# RDI: an address. Leaves the counter there.
.global diverging_memory
.type diverging_memory, @function
diverging_memory:
    hidden_rdtsc
    mov [rdi], rax
    xor eax, eax
    ret
.size diverging_memory, . - diverging_memory

# RDI exits with nothing in the registers that a call may change.
.global diverging_exits
.type diverging_exits, @function
diverging_exits:
    xor ecx, ecx
    xor edx, edx
    xor esi, esi
    xor r8d, r8d
    xor r9d, r9d
    xor r10d, r10d
    xor r11d, r11d
    exits
    ret
.size diverging_exits, . - diverging_exits
